"""Training and evaluation as functions: what the command line, Python and the search call."""
