"""Trained networks from run folders and checkpoints, and what they say of pictures."""
