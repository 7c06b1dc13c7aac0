"""``rillet export`` and ``rillet quantize``."""
