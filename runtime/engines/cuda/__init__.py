"""The NVIDIA driver and the CUDA runtime, for the engines that compute on a GPU."""
