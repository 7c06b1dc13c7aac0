"""The commands ``rillet export`` and ``rillet quantize``."""
