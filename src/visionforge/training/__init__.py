"""Training: the LightningModule, its loss, MixUp, schedule, test-time augmentation and callbacks."""
