"""A trained network behind an HTTP address: pictures in, what `predict` says of them out."""
