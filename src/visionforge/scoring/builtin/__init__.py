"""The metrics of this package, a file for each group; `visionforge.config.schema.metrics` finds them here."""
