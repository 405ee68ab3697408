"""Classifiers of features that are no linear layer: neighbours and trees, as modules that every export knows.

What scikit-learn has fitted is held in buffers, whose sizes a checkpoint gives: they are checked before anything is
built of them, since checkpoints come from strangers. Every operation is one that ONNX has.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionforge.models.stored_head import StoredHead as StoredHead

FLOOR = 1e-7  # least probability of a class without a vote: its logit stays finite, and a mistake costs at most 16 nats
TEMPERATURE = 0.07  # of the weights of neighbours (Wu et al., 2018, arXiv:1805.01978)
BLOCK = 16_384  # images of the bank that are compared at once


class FeatureHead(nn.Module):
    """A classifier of features (N, D), in the place of a network's last linear layer.

    Attributes:
        buffers_of: Names of its buffers.
        in_features: Number of features D.
        out_features: Number of logits K.
        passes_on: Give the features behind the logits, too: of an export that looks at both.
    """

    buffers_of: ClassVar[tuple[str, ...]]
    in_features: int
    out_features: int
    passes_on = False

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, D) features to (N, K) logits."""
        found = self.logits(features)
        return torch.cat([found, features], dim=1) if self.passes_on else found

    def logits(self, features: Tensor) -> Tensor:
        """Return (N, K) logits of features (N, D)."""
        raise NotImplementedError

    @property
    def stored(self) -> StoredHead:
        """Return what a checkpoint says of it beside its buffers."""
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

    buffers_of: ClassVar[tuple[str, ...]] = ("mean", "scale", "bank", "votes", "against")
    mean: Tensor
    scale: Tensor
    bank: Tensor
    votes: Tensor
    against: Tensor | None

    def __init__(
        self, mean: Tensor, scale: Tensor, bank: Tensor, votes: Tensor, against: Tensor | None, neighbours: int
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.neighbours = bank.shape[1], votes.shape[1], neighbours
        for name, each in (("mean", mean), ("scale", scale), ("bank", bank), ("votes", votes), ("against", against)):
            self.register_buffer(name, each)

    @property
    def stored(self) -> StoredHead:
        """Return the number of neighbours."""
        return StoredHead(kind="knn", neighbours=self.neighbours)

    def logits(self, features: Tensor) -> Tensor:
        """Return (N, K) logits of features (N, D)."""
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

    Features are first rounded to cells: on another machine they differ in their last digits, and where many lie close
    together, as near 0 behind a ReLU, every one of these digits would be on this or that side of a threshold.

    A node is its row in the buffers; that of a leaf leads to itself, so that all trees take the same number of steps.

    Args:
        tensors: `mean` and `scale` (D,) float32, which make cells of features; see `cells_of`. Of T trees of at most S
            nodes `feature` (T, S) int64, by which a node decides; `threshold` (T, S) float32, up to which its left
            child is next; `left` and `right` (T, S) int64, the rows of its children, counted over all trees; `value`
            (T, S) float32, what a leaf adds. Of M scores `spread` (M, K) float32, what they are worth for the classes:
            tree t adds to the score t modulo M; and `baseline` (K,) float32, the logits without any tree.
        in_features: Number of features D.
        depth: Steps from the root to the lowest leaf.
    """

    buffers_of: ClassVar[tuple[str, ...]] = (
        *("mean", "scale"),
        *("feature", "threshold", "left", "right", "value"),
        *("spread", "baseline"),
    )
    mean: Tensor
    scale: Tensor
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    spread: Tensor
    baseline: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], in_features: int, depth: int) -> None:
        super().__init__()
        self.in_features, self.out_features, self.depth = in_features, len(tensors["baseline"]), depth
        for name in self.buffers_of:
            self.register_buffer(name, tensors[name])

    @property
    def stored(self) -> StoredHead:
        """Return the depth."""
        return StoredHead(kind="gradient_boosting", depth=self.depth)

    def logits(self, features: Tensor) -> Tensor:
        """Return (N, K) logits of features (N, D)."""
        trees, size = self.feature.shape
        features = cells_of(features, self.mean, self.scale)
        node = (torch.arange(trees, device=features.device) * size).expand(features.shape[0], trees)
        feature, threshold = self.feature.flatten(), self.threshold.flatten()
        left, right = self.left.flatten(), self.right.flatten()
        for _ in range(self.depth):
            below = features.gather(1, feature[node]) <= threshold[node]
            node = torch.where(below, left[node], right[node])
        added = self.value.flatten()[node]
        scores = len(self.spread)
        return added.reshape(-1, trees // scores, scores).sum(dim=1) @ self.spread + self.baseline


def cells_of(features: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return (N, D) whole numbers of the cells in which features (N, D) lie: (x - mean) · scale, rounded."""
    return ((features - mean) * scale).round()


def unit(features: Tensor) -> Tensor:
    """Return features (N, D) scaled to length 1; those of length 0 stay."""
    length = (features**2).sum(dim=1, keepdim=True).sqrt()
    return features / length.clamp(min=1e-12)


# --- from checkpoints, which may be anybody's


def head_from_file(stored: StoredHead, tensors: Mapping[str, Tensor], in_features: int, outputs: int) -> FeatureHead:
    """Return the classifier that a checkpoint holds.

    Args:
        stored: What it says of it.
        tensors: Its buffers by name; from a file.
        in_features: Number of features D of the network that it belongs to.
        outputs: Number of logits K.

    Raises:
        ValueError: If it is one of another network.
    """
    build = _neighbours if stored.kind == "knn" else _trees
    return build(stored, tensors, in_features, outputs)


def _neighbours(stored: StoredHead, tensors: Mapping[str, Tensor], d: int, outputs: int) -> FeatureHead:
    images = _length(tensors, "bank")
    shapes = {"mean": (d,), "scale": (d,), "bank": (images, d), "votes": (images, outputs)}
    if "against" in tensors:
        shapes["against"] = (images, outputs)
    _require(tensors, shapes)
    if stored.neighbours > images:
        raise ValueError(f"its classifier asks {stored.neighbours} neighbours of {images} images")
    against = tensors.get("against")
    mean, scale, bank, votes = (tensors[name] for name in ("mean", "scale", "bank", "votes"))
    return NeighbourHead(mean, scale, bank, votes, against, stored.neighbours)


def _trees(stored: StoredHead, tensors: Mapping[str, Tensor], d: int, outputs: int) -> FeatureHead:
    form, scores = tuple(tensors["feature"].shape) if "feature" in tensors else (), _length(tensors, "spread")
    if len(form) != 2 or not scores or form[0] % scores:
        raise ValueError("its trees cannot be read")
    nodes = dict.fromkeys(("feature", "threshold", "left", "right", "value"), form)
    others = {"mean": (d,), "scale": (d,), "spread": (scores, outputs), "baseline": (outputs,)}
    _require(tensors, {**nodes, **others}, ("feature", "left", "right"))
    rows = form[0] * form[1]
    for name, end in (("feature", d), ("left", rows), ("right", rows)):
        if int(tensors[name].min()) < 0 or int(tensors[name].max()) >= end:
            raise ValueError(f"its trees lead out of themselves ({name})")
    return TreeHead({name: tensors[name] for name in TreeHead.buffers_of}, d, stored.depth)


def _length(tensors: Mapping[str, Tensor], name: str) -> int:
    return len(tensors[name]) if name in tensors and tensors[name].ndim else 0


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
