"""``rillet train``."""
