"""Mends, not hides, a deprecation: Lightning 2.6 builds pytree leaves through a class that newer torch deprecates."""

import lightning.pytorch.utilities._pytree as lightning_pytree
import torch.utils._pytree as torch_pytree


def use_current_leaf_spec() -> None:
    """Let Lightning build leaves with torch's own factory where torch has one."""
    factory = getattr(torch_pytree, "treespec_leaf", None)
    if factory is not None:
        lightning_pytree.LeafSpec = factory  # type: ignore[attr-defined]
