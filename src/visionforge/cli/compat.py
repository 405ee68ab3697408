"""Where the libraries do not fit together: mended here, and nowhere hidden."""

import enum

import lightning.pytorch.utilities._pytree as lightning_pytree
import torch.utils._pytree as torch_pytree
import yaml


def use_current_leaf_spec() -> None:
    """Let Lightning build leaves with torch's own factory where torch has one, instead of a deprecated class."""
    factory = getattr(torch_pytree, "treespec_leaf", None)
    if factory is not None:
        lightning_pytree.LeafSpec = factory  # type: ignore[attr-defined]


def write_enums_as_values() -> None:
    """Let a configuration be written that has an enumeration's member in it, as the default of a callback's may be."""
    yaml.SafeDumper.add_multi_representer(enum.Enum, lambda dumper, member: dumper.represent_data(member.value))
