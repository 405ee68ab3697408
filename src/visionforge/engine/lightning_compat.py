"""Where the libraries do not fit together: mended here, and nowhere hidden."""

from pathlib import Path

import lightning.pytorch as pl
import lightning.pytorch.utilities._pytree as lightning_pytree
import torch.utils._pytree as torch_pytree


def use_current_leaf_spec() -> None:
    """Let Lightning build leaves with torch's own factory where torch has one, instead of a deprecated class."""
    factory = getattr(torch_pytree, "treespec_leaf", None)
    if factory is not None:
        lightning_pytree.LeafSpec = factory  # type: ignore[attr-defined]


def begin_from(trainer: pl.Trainer, checkpoint: Path) -> None:
    """Let a Trainer that is being set up for a fit begin from a checkpoint, as if it had been given to `fit`.

    Only tensors and plain values are read. A Trainer has no public way to be told so late.
    """
    trainer._checkpoint_connector.resume_start(str(checkpoint), weights_only=True)
