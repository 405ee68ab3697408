"""Runs as folders: workspace, identity and log file; imports no torch."""
