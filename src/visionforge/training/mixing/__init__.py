"""Mixing of training pairs, one file each."""
