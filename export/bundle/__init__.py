"""Writing a bundle: files, model card, and the commands on it."""
