"""Trained networks published and fetched: as a repository of the Hugging Face Hub, or as a folder of the same files."""
