"""Classifiers of features that are no linear layer: neighbours and trees, as modules that every export knows.

What scikit-learn has fitted is held in buffers, whose sizes a checkpoint gives: they are checked before anything is
built of them, since checkpoints come from strangers. Every operation is one that ONNX has.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

FLOOR = 1e-7  # least probability of a class without a vote: its logit stays finite, and a mistake costs at most 16 nats
TEMPERATURE = 0.07  # of the weights of neighbours (Wu et al., 2018, arXiv:1805.01978)
BLOCK = 16_384  # images of the bank that are compared at once
MOST_NEIGHBOURS, MOST_DEPTH = 10_000, 64


class FeatureHead(nn.Module):
    """A classifier of features (N, D), in the place of a network's last linear layer.

    Attributes:
        kind: What a checkpoint calls it.
        in_features: Number of features D.
    """

    kind: ClassVar[str]
    in_features: int

    def stored(self) -> dict[str, Any]:
        """Return what a checkpoint says of it beside its buffers: plain values."""
        raise NotImplementedError


class NeighbourHead(FeatureHead):
    """Logits of the votes of the nearest training images, weighted by exp(-distance / 0.07).

    Features are standardised; the distance is that of cosine, 1 - cos (Wu et al., 2018, arXiv:1805.01978). Smooth
    weights, and not 1 / distance: these have no end where an image is in the bank, and turn rounding into votes.

    Args:
        mean: (D,) of the features.
        scale: (D,) what features are multiplied by after that.
        bank: (M, D) float32, standardised features of length 1.
        votes: (M, K) what each image of the bank says for a class.
        against: (M, K) what it says against a label; None where classes exclude each other.
        neighbours: How many vote.
    """

    kind: ClassVar[str] = "knn"
    mean: Tensor
    scale: Tensor
    bank: Tensor
    votes: Tensor
    against: Tensor | None

    def __init__(
        self, mean: Tensor, scale: Tensor, bank: Tensor, votes: Tensor, against: Tensor | None, neighbours: int
    ) -> None:
        super().__init__()
        self.in_features, self.neighbours = bank.shape[1], neighbours
        for name, each in (("mean", mean), ("scale", scale), ("bank", bank), ("votes", votes), ("against", against)):
            self.register_buffer(name, each)

    def stored(self) -> dict[str, Any]:
        """Return the number of neighbours."""
        return {"kind": self.kind, "neighbours": self.neighbours}

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, D) features to (N, K) logits."""
        nearest, places = self._nearest(unit((features - self.mean) * self.scale))
        shares = (nearest / TEMPERATURE).softmax(dim=1)[:, :, None]
        for_it = (shares * self.votes[places]).sum(dim=1)
        if self.against is None:
            return (for_it / for_it.sum(dim=1, keepdim=True)).clamp(min=FLOOR).log()
        against = (shares * self.against[places]).sum(dim=1)
        whole = for_it + against
        return (for_it / whole).clamp(min=FLOOR).log() - (against / whole).clamp(min=FLOOR).log()

    def _nearest(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, k) cosines of the nearest, and where they are in the bank, compared block by block."""
        best: tuple[Tensor, Tensor] | None = None
        for start in range(0, len(self.bank), BLOCK):
            block = self.bank[start : start + BLOCK]
            values, places = (given @ block.T).topk(min(self.neighbours, len(block)), dim=1)
            places = places + start
            if best is not None:
                values, places = torch.cat([best[0], values], dim=1), torch.cat([best[1], places], dim=1)
                values, chosen = values.topk(min(self.neighbours, values.shape[1]), dim=1)
                places = places.gather(1, chosen)
            best = values, places
        assert best is not None
        return best


class TreeHead(FeatureHead):
    """Logits of boosted trees, each of which is walked down level by level.

    A node is its row in the buffers; that of a leaf leads to itself, so that all trees take the same number of steps.

    Args:
        feature: (T, S) int64, by which feature a node decides.
        threshold: (T, S) float32, up to which its left child is next.
        left: (T, S) int64 row of the left child, counted over all trees.
        right: (T, S) int64 row of the right child.
        value: (T, S) float32 what a leaf adds.
        spread: (M, K) what each of M scores is worth for a class; tree t adds to the score t modulo M.
        baseline: (K,) logits without any tree.
        in_features: Number of features D.
        depth: Steps from the root to the lowest leaf.
    """

    kind: ClassVar[str] = "gradient_boosting"
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    spread: Tensor
    baseline: Tensor

    def __init__(
        self,
        feature: Tensor,
        threshold: Tensor,
        left: Tensor,
        right: Tensor,
        value: Tensor,
        spread: Tensor,
        baseline: Tensor,
        in_features: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.in_features, self.depth = in_features, depth
        nodes = {"feature": feature, "threshold": threshold, "left": left, "right": right, "value": value}
        for name, each in {**nodes, "spread": spread, "baseline": baseline}.items():
            self.register_buffer(name, each)

    def stored(self) -> dict[str, Any]:
        """Return the depth."""
        return {"kind": self.kind, "depth": self.depth}

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, D) features to (N, K) logits."""
        trees, size = self.feature.shape
        roots = torch.arange(trees, device=features.device) * size
        node = roots.expand(len(features), trees)
        feature, threshold = self.feature.flatten(), self.threshold.flatten()
        left, right = self.left.flatten(), self.right.flatten()
        for _ in range(self.depth):
            below = features.gather(1, feature[node]) <= threshold[node]
            node = torch.where(below, left[node], right[node])
        added = self.value.flatten()[node]
        scores = len(self.spread)
        return added.reshape(-1, trees // scores, scores).sum(dim=1) @ self.spread + self.baseline


def unit(features: Tensor) -> Tensor:
    """Return features (N, D) scaled to length 1; those of length 0 stay."""
    length = (features**2).sum(dim=1, keepdim=True).sqrt()
    return features / length.clamp(min=1e-12)


# --- from checkpoints, which may be anybody's


def head_from_file(stored: Any, tensors: Mapping[str, Tensor], in_features: int, outputs: int) -> FeatureHead:
    """Return the classifier that a checkpoint holds.

    Args:
        stored: What `stored` has given; from a file.
        tensors: Its buffers by name; from a file.
        in_features: Number of features D of the network that it belongs to.
        outputs: Number of logits K.

    Raises:
        ValueError: If it is none, or is one of another network.
    """
    kind = stored.get("kind") if isinstance(stored, Mapping) else None
    if kind == NeighbourHead.kind:
        return _neighbours(stored, tensors, in_features, outputs)
    if kind == TreeHead.kind:
        return _trees(stored, tensors, in_features, outputs)
    raise ValueError("its classifier is of no known kind")


def _neighbours(stored: Mapping[str, Any], tensors: Mapping[str, Tensor], d: int, outputs: int) -> NeighbourHead:
    images = len(tensors["bank"]) if "bank" in tensors and tensors["bank"].ndim else 0
    shapes = {"mean": (d,), "scale": (d,), "bank": (images, d), "votes": (images, outputs)}
    if "against" in tensors:
        shapes["against"] = (images, outputs)
    _require(tensors, shapes)
    count = _whole(stored.get("neighbours"), 1, min(images, MOST_NEIGHBOURS))
    parts = (tensors[name] for name in ("mean", "scale", "bank", "votes"))
    return NeighbourHead(*parts, tensors.get("against"), count)


def _trees(stored: Mapping[str, Any], tensors: Mapping[str, Tensor], d: int, outputs: int) -> TreeHead:
    form = tuple(tensors["feature"].shape) if "feature" in tensors else ()
    scores = len(tensors["spread"]) if "spread" in tensors and tensors["spread"].ndim else 0
    if len(form) != 2 or not scores or form[0] % scores:
        raise ValueError("its trees cannot be read")
    whole = ("feature", "left", "right")
    shapes = {
        **dict.fromkeys((*whole, "threshold", "value"), form),
        "spread": (scores, outputs),
        "baseline": (outputs,),
    }
    _require(tensors, shapes, whole)
    for name, end in (("feature", d), ("left", form[0] * form[1]), ("right", form[0] * form[1])):
        if tensors[name].numel() and not (0 <= int(tensors[name].min()) and int(tensors[name].max()) < end):
            raise ValueError(f"its trees lead out of themselves ({name})")
    depth = _whole(stored.get("depth"), 0, MOST_DEPTH)
    names = ("feature", "threshold", "left", "right", "value", "spread", "baseline")
    return TreeHead(*(tensors[name] for name in names), d, depth)


def _require(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], whole: tuple[str, ...] = ()) -> None:
    if tensors.keys() != shapes.keys():
        raise ValueError("its classifier has other tensors than it should")
    for name, shape in shapes.items():
        each, dtype = tensors[name], torch.int64 if name in whole else torch.float32
        held = each.untyped_storage().nbytes() >= each.numel() * each.element_size()  # none is said to be larger
        if tuple(each.shape) != shape or each.dtype != dtype or not held or 0 in shape:
            raise ValueError(f"its classifier is of another network ({name} is {tuple(each.shape)} of {each.dtype})")
        if dtype == torch.float32 and not bool(torch.isfinite(each).all()):
            raise ValueError(f"its classifier is not finite ({name})")


def _whole(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"its classifier says {value!r}; allowed: a whole number, {low} to {high}")
    return value
