"""The C sources of the native library and of firmware, as data of the package."""
