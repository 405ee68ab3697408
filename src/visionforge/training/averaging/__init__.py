"""The averages of weights: one file each, with settings and how it is built."""
