"""Figures: as pictures, and to explore in a browser."""
