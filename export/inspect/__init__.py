"""What goes on inside a bundle while it reads."""
