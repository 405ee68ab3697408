"""The best epoch is the one with the best value, and of equal ones the later."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from visionforge.training.checkpoints import BestCheckpoint


class Scripted(pl.LightningModule):
    """Logs given values instead of measuring anything."""

    def __init__(self, values):
        super().__init__()
        self.layer, self.values = nn.Linear(1, 1), values

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/auc", self.values[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.parametrize(
    ("values", "best"),
    [([0.5, 0.9, 0.7], 1), ([0.5, 0.9, 0.9], 2), ([1.0, 1.0, 0.2], 1), ([float("nan"), 0.3, 0.2], 1)],
)
def test_choice_of_the_epoch(tmp_path, values, best):
    loader = torch.utils.data.DataLoader(torch.zeros(2, 1))
    checkpoint = BestCheckpoint(tmp_path, filename="best", monitor="val/auc", mode="max", enable_version_counter=False)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Scripted(values), loader, loader)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == best
    assert len(list(tmp_path.iterdir())) == 1
