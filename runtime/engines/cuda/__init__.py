"""The NVIDIA driver and CUDA's memory, without an engine."""
