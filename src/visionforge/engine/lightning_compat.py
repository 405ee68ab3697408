"""Where the libraries do not fit together: mended here, and nowhere hidden."""

import warnings
from functools import cache
from pathlib import Path

import lightning.pytorch as pl
import lightning.pytorch.utilities._pytree as lightning_pytree
import torch.utils._pytree as torch_pytree


def use_current_leaf_spec() -> None:
    """Let Lightning build leaves with torch's own factory where torch has one, instead of a deprecated class."""
    factory = getattr(torch_pytree, "treespec_leaf", None)
    if factory is not None:
        lightning_pytree.LeafSpec = factory  # type: ignore[attr-defined]


@cache
def ignore_hook_warning() -> None:
    """Leave out, from now on, Lightning's warning that the module augments batches and the data module does not."""
    message = "You have overridden `on_before_batch_transfer` in `LightningModule` but have passed in"
    warnings.filterwarnings("ignore", message=message)


def begin_from(trainer: pl.Trainer, checkpoint: Path) -> None:
    """Let a Trainer that is being set up for a fit begin from a checkpoint, as if it had been given to `fit`.

    Only tensors and plain values are read. A Trainer has no public way to be told so late.
    """
    trainer._checkpoint_connector.resume_start(str(checkpoint), weights_only=True)
