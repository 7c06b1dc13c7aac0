"""Firmware: a bundle as a folder of C for microcontrollers, from the native library's sources."""
