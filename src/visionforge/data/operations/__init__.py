"""Augmentation operations that are added to the fused pass: one file each."""
