"""Streams of text: their state, and everything that reads, writes, scores, batches or saves one."""
