"""The native engine: a C library of our own, without dependencies, for every processor."""
