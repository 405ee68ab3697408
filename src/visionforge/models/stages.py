"""The stages of a network: what is unfrozen step by step, and where its feature maps are looked at."""

from dataclasses import dataclass

from torch import nn

from visionforge.models.entry import BackboneEntry


@dataclass(frozen=True)
class Parts:
    """What optimisers and staged unfreezing tell apart in a network, by names of its modules and parameters.

    Attributes:
        head: Prefixes of the parameters that are new and trained first: the classifier's, or the decoder's.
        stem: Name of the first convolution's weight, or nothing.
        stages: Names of the modules that make up the backbone, from the input on.
    """

    head: tuple[str, ...]
    stem: str
    stages: tuple[str, ...]


def parts_of(entry: BackboneEntry, network: nn.Module) -> Parts:
    """Return the parts of a network with a classifier, or of one with a decoder, which knows its own.

    Raises:
        SettingsError: If the network has no linear layer to go by.
    """
    own = getattr(network, "parts", None)
    if isinstance(own, Parts):
        return own
    return Parts(entry.head_of(network), entry.stem_of(network), stage_names(entry, network))


def stage_names(entry: BackboneEntry, network: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that make up the backbone, from the input to the classifier.

    Those of the registry entry; without them the network's children that have parameters, the members of sequences one
    by one, without the classifier.
    """
    if entry.stages:
        return entry.stages
    head = entry.head_of(network)
    found = []
    for name, child in network.named_children():
        members = [f"{name}.{inner}" for inner, _ in child.named_children()]
        split = isinstance(child, (nn.Sequential, nn.ModuleList)) and len(members) > 1
        found += members if split else [name]
    return tuple(
        name
        for name in found
        if not (f"{name}.".startswith(head) or any(prefix.startswith(f"{name}.") for prefix in head))
        and any(True for _ in network.get_submodule(name).parameters())
    )
