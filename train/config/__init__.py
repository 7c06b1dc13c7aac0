"""Configuration of the model and of training, with presets by size."""
