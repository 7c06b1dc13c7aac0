"""The model: reservoir, attention, both CNNs and the memory."""
