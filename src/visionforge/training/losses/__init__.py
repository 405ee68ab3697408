"""The losses: one file each, with settings and how it is built."""
