"""The tasks: one file each; `visionforge.config.schema.tasks` finds them here, and nobody else compares their names."""

USUAL = "multi-class"  # of rendered images, where nobody says what their labels are
