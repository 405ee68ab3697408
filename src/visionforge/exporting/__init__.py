"""Export: artifacts that predict without visionforge, each proven against the network that it was made from."""
