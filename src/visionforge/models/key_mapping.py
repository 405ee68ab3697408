"""Which pretrained tensor belongs to which of a network's: by name or, where no name is known, by order and shape."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

_COUNTER = "num_batches_tracked"  # of batch normalisation; older files have none
_LEAVES = ("weight", "bias", "running_mean", "running_var")  # last parts of names that say what a tensor is


@dataclass(frozen=True)
class KeyMapping:
    """Pretrained tensors under the network's names.

    Attributes:
        tensors: State dict; what belongs to nothing keeps its name.
        by: How they were found.
        alike: By order, how many share their shape and kind with another: had two of them changed places, nobody would
            notice.
        problem: Why neither goes; empty if one does.
    """

    tensors: Mapping[str, Tensor]
    by: Literal["name", "order"] = "name"
    alike: int = 0
    problem: str = ""


def map_keys(
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    head: str | tuple[str, ...],
    fitted: tuple[str, ...] = (),
    computed: tuple[str, ...] = (),
) -> KeyMapping:
    """Give pretrained tensors the names of a network's.

    By name as soon as one weight outside the classifier has a name that the network knows. Otherwise by order: the n-th
    tensor is the network's n-th, if every one has the shape of its partner and, where both names end in ``weight``,
    ``bias``, ``running_mean`` or ``running_var``, the same ending. Counters of batch normalisation do not count. The
    classifier may have another number of classes, or be left out.

    Shapes are no proof of the order: a network that has two tensors of one shape may have been written down the other
    way round. So the mapping is told, with the number of tensors that this could concern.

    Args:
        source: Pretrained tensors by name, in the order of their definition.
        target: The network's tensors by name.
        head: Prefix of the classifier, or several.
        fitted: Names of tensors that may change their shape.
        computed: Last parts of the names of buffers that the network computes itself.
    """
    if any(name in target and name.endswith("weight") and not name.startswith(head) for name in source):
        return KeyMapping(source)
    left_out = (_COUNTER, *computed)
    theirs = [name for name in source if _leaf(name) not in left_out]
    ours = [name for name in target if _leaf(name) not in left_out]
    body = [name for name in ours if not name.startswith(head)]
    if len(theirs) == len(body) and ours[: len(body)] == body:
        ours = body
    if len(theirs) != len(ours):
        return KeyMapping(source, problem=f"and it has {len(theirs)} tensors, the network {len(ours)}")
    for number, (their, our) in enumerate(zip(theirs, ours, strict=True), 1):
        if not _fits(their, source[their], our, target[our], our.startswith(head), our in fitted):
            shapes = [tuple(tensor.shape) for tensor in (source[their], target[our])]
            return KeyMapping(
                source,
                problem=f"and by order its tensor {number}, {their} {shapes[0]}, is not the network's, "
                f"{our} {shapes[1]}",
            )
    renamed = {our: source[their] for their, our in zip(theirs, ours, strict=True)}
    counters = [[name for name in names if _leaf(name) == _COUNTER] for names in (source, target)]
    if len(counters[0]) == len(counters[1]):
        renamed |= {our: source[their] for their, our in zip(*counters, strict=True)}
    told = all(_leaf(name) in _LEAVES for name in theirs)  # what a tensor is; otherwise its shape alone counts
    kinds = Counter((tuple(source[name].shape), _leaf(name) if told else "") for name in theirs)
    return KeyMapping(renamed, "order", sum(count for count in kinds.values() if count > 1))


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _fits(their: str, value: Tensor, our: str, own: Tensor, is_head: bool, is_fitted: bool) -> bool:
    leaves = {_leaf(their), _leaf(our)}
    if len(leaves) > 1 and leaves <= set(_LEAVES):
        return False
    if is_head:
        return value.ndim == own.ndim and value.shape[1:] == own.shape[1:]
    if is_fitted:
        return value.ndim == own.ndim and value.shape[0] == own.shape[0]
    return value.shape == own.shape
