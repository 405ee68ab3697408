"""The detectors: one file each, with settings and how it is built; importing them loads no torch."""
