"""The front door: light commands that answer at once, and a thin LightningCLI for the rest."""
