"""Where the libraries do not fit together: mended here, and nowhere hidden."""

import lightning.pytorch.utilities._pytree as lightning_pytree
import torch.utils._pytree as torch_pytree


def use_current_leaf_spec() -> None:
    """Let Lightning build leaves with torch's own factory where torch has one, instead of a deprecated class."""
    factory = getattr(torch_pytree, "treespec_leaf", None)
    if factory is not None:
        lightning_pytree.LeafSpec = factory  # type: ignore[attr-defined]
