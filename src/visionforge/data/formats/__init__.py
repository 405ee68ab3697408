"""Readers of published files, one file a format: labels in memory, images a block at a time."""
