"""Waves, as a researcher looks at them."""
