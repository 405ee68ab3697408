"""The built-in corruptions, a family a file; they import torch when they are applied, not before."""
