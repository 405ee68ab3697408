"""Which images of a data set are the same picture: equal, nearly equal, or turned, cropped and otherwise changed."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from visionforge.data.archive import channels_of
from visionforge.data.info import SPLITS, Split
from visionforge.data.inspect import NEAR_DIFFERENCE, find_leaks
from visionforge.data.thumbnails import LEAST_SIDE, VIEWS, thumbnails, view

Kind = Literal["equal", "near", "changed", "alike"]
KINDS: dict[Kind, str] = {
    "equal": "equal pixels",
    "near": "nearly equal pixels",
    "changed": "the same picture, changed",
    "alike": "look alike, which pixels do not confirm",
}
LEAST_ALIKE = 0.98  # cosine of centred features from which two images are alike
_SCALED, _MOVED, _CONTRAST = 0.02, 0.01, 0.1  # from which a change is named: of the size, the side, the contrast
_EQUAL = 1.0


@dataclass(frozen=True)
class Place:
    """An image of a data set.

    Attributes:
        split: Its split.
        position: Its place there, from 0.
        name: What it was called when it was imported, or None.
        label: Its label in words, or None where images have masks or boxes.
    """

    split: Split
    position: int
    name: str | None = None
    label: str | None = None

    def __str__(self) -> str:
        return f"{self.split} {self.position if self.name is None else self.name}"


@dataclass(frozen=True)
class Pair:
    """Two images that are the same picture.

    Attributes:
        kind: ``equal``, ``near``, ``changed``, or ``alike`` to an embedding or, of volumes, to a perceptual hash only.
        first: One image.
        second: The other, in the same or a later split.
        similarity: 1 for equal pixels; else the correlation of what the two do not share with all others, or the
            cosine of the features of those that are alike; of volumes 1 − mean difference / 255.
        change: What turns the first into the second, in words; empty where nothing does.
    """

    kind: Kind
    first: Place
    second: Place
    similarity: float
    change: str = ""

    @property
    def across(self) -> bool:
        """Whether the images lie in different splits."""
        return self.first.split != self.second.split

    @property
    def conflict(self) -> bool:
        """Whether one picture has two labels; of images that are only alike that is no conflict."""
        return self.kind != "alike" and self.first.label != self.second.label

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        sides = {"first": self.first, "second": self.second}
        places = {
            f"{side}_{name}": getattr(place, name)
            for side, place in sides.items()
            for name in ("split", "position", "name", "label")
        }
        return {
            "kind": self.kind,
            **places,
            "similarity": round(self.similarity, 4),
            "change": self.change,
            "labels_differ": self.conflict,
        }


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        pairs: Across splits before those within, by kind, the most similar first.
        notes: How far it was looked for, if not everywhere.
    """

    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)

    def between(self, first: Split, second: Split, kind: Kind | None = None) -> list[Pair]:
        """Return the pairs of two splits, which may be the same one, of one kind or all."""
        found = [pair for pair in self.pairs if (pair.first.split, pair.second.split) == (first, second)]
        return [pair for pair in found if kind in (None, pair.kind)]

    @property
    def conflicts(self) -> list[Pair]:
        """Pictures that have two labels."""
        return [pair for pair in self.pairs if pair.conflict]


class DuplicateSearch:
    """Looks for duplicates among the splits of a data set, which are given one after another.

    Args:
        resolution: Height and width of the images in pixels.
        exactly: Compare by equality only.
    """

    def __init__(self, resolution: int, exactly: bool = False) -> None:
        self._resolution = resolution
        self._exactly = exactly
        self._places: list[Place] = []
        self._digests: list[bytes] = []
        self._turned: list[bytes] = []
        self._copies: list[npt.NDArray[np.uint8]] = []
        self._volumes: dict[Split, npt.NDArray[np.uint8]] = {}

    def add(
        self,
        split: Split,
        images: npt.NDArray[np.uint8],
        names: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Look at a split; of images only small copies are kept.

        Args:
            split: Which one; in the order of `SPLITS`.
            images: (N, R, R) or (N, R, R, 3) uint8, or volumes with one axis more.
            names: What they are called; None numbers them.
            labels: Their labels in words; None where labels are not compared.
        """
        for k in range(len(images)):
            name, label = None if names is None else names[k], None if labels is None else labels[k]
            self._places.append(Place(split, k, name, label))
        volumes = images.ndim - (channels_of(images.shape) == 3) == 4
        self._digests += [_digest(image) for image in images]
        if volumes or self._resolution < LEAST_SIDE:
            self._turned += [b"" if self._exactly else _canonical(image, volumes) for image in images]
        if volumes:
            self._volumes[split] = images
        elif self._resolution >= LEAST_SIDE and not self._exactly:
            self._copies.append(thumbnails(images))

    def found(self, features: npt.NDArray[np.float32] | None = None) -> Duplicates:
        """Return what was found in all splits.

        Args:
            features: (N, D) features of all images in their order, by which some are alike, too; None has none.
        """
        pairs, notes = self._equal(), []
        if self._exactly:
            return Duplicates(_sorted(pairs), ["compared by equal pixels only"])
        if self._turned:
            pairs += self._mirrored()
        if self._volumes:
            notes.append("volumes are compared as they are, by equal pixels also mirrored")
            pairs += self._near_volumes()
        elif not self._copies:
            notes.append(f"images under {LEAST_SIDE} pixels are compared by equal pixels, also turned")
        else:
            from visionforge.data.alike import MOST_NEIGHBOURS  # torch takes a second
            from visionforge.data.same_picture import same_pictures

            near, cut = same_pictures(np.concatenate(self._copies), self._digests, features)
            pairs += [self._named(*each) for each in near]
            notes += (
                [f"of images that look like more than {MOST_NEIGHBOURS} others, the most alike were compared"]
                if cut
                else []
            )
        if features is not None:
            pairs += self._alike(features, {(id(pair.first), id(pair.second)) for pair in pairs})
        return Duplicates(_sorted(pairs), notes)

    def _named(self, first: int, second: int, kind: Kind, similarity: float, change: str) -> Pair:
        return Pair(kind, self._places[first], self._places[second], similarity, change)

    def _grouped(self, keys: Sequence[bytes]) -> list[tuple[int, int]]:
        """Return pairs of positions with equal keys: of every split its first with each later one of it or others."""
        members: dict[bytes, list[int]] = {}
        for position, key in enumerate(keys):
            members.setdefault(key, []).append(position)
        pairs = []
        for group in members.values():
            firsts: dict[Split, int] = {}
            for position in group if len(group) > 1 else ():
                pairs += [(first, position) for first in firsts.values()]
                firsts.setdefault(self._places[position].split, position)
        return pairs

    def _equal(self) -> list[Pair]:
        return [self._named(a, b, "equal", _EQUAL, "") for a, b in self._grouped(self._digests)]

    def _mirrored(self) -> list[Pair]:
        turned = "mirrored" if self._volumes else "turned or mirrored"
        found = [(a, b) for a, b in self._grouped(self._turned) if self._digests[a] != self._digests[b]]
        return [self._named(a, b, "changed", _EQUAL, turned) for a, b in found]

    def _near_volumes(self) -> list[Pair]:
        first_of = {split: next(k for k, p in enumerate(self._places) if p.split == split) for split in self._volumes}
        pairs = []
        for leak in find_leaks(self._volumes):
            for a, b in leak.near:
                one, two = self._volumes[leak.first][a], self._volumes[leak.second][b]
                similarity = 1 - float(np.abs(one.astype(np.int16) - two).mean()) / 255
                pairs.append(self._named(first_of[leak.first] + a, first_of[leak.second] + b, "alike", similarity, ""))
        return pairs

    def _alike(self, features: npt.NDArray[np.float32], known: set[tuple[int, int]]) -> list[Pair]:
        from visionforge.data.same_picture import nearest_by_features

        pairs = [self._named(a, b, "alike", value, "") for a, b, value in nearest_by_features(features, LEAST_ALIKE)]
        return [pair for pair in pairs if pair.across and (id(pair.first), id(pair.second)) not in known]


def change_text(which: int, moved: Sequence[float], scale: float, brighter: float, gain: float) -> str:
    """Return in words what turns one image into another.

    Args:
        which: How it is turned, a place in `VIEWS`.
        moved: Right and down, in shares of the side.
        scale: By which it is larger.
        brighter: Difference of the mean grey values, of 255.
        gain: Contrast relative to the first.

    >>> change_text(1, (0.0, 0.0), 1.1, 20.0, 1.0)
    'mirrored left to right, scaled by 1.10, other brightness or contrast'
    """
    parts = [VIEWS[which]] if which else []
    if abs(scale - 1) > _SCALED:
        parts.append(f"scaled by {scale:.2f}")
    if max(map(abs, moved)) > _MOVED:
        parts.append(f"moved by {max(map(abs, moved)):.0%} of the side")
    if abs(brighter) > NEAR_DIFFERENCE or abs(gain - 1) > _CONTRAST:
        parts.append("other brightness or contrast")
    return ", ".join(parts)


def _digest(image: npt.NDArray[np.generic]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _canonical(image: npt.NDArray[np.uint8], volume: bool) -> bytes:
    """Return what is equal for all mirror images of a volume, or all turned and mirrored images of a square."""
    plain = np.moveaxis(image, -1, 0) if image.shape[-1] == 3 else image
    if not volume:
        return min(_digest(view(plain, which)) for which in range(len(VIEWS)))
    axes = (-3, -2, -1)
    flips = [axis for count in range(4) for axis in combinations(axes, count)]
    return min(_digest(np.flip(plain, axis)) for axis in flips)


def _sorted(pairs: list[Pair]) -> list[Pair]:
    order = list(KINDS)
    return sorted(
        pairs,
        key=lambda pair: (
            not pair.across,
            order.index(pair.kind),
            -pair.similarity,
            *((SPLITS.index(place.split), place.position) for place in (pair.first, pair.second)),
        ),
    )


def find_duplicates(
    images: Mapping[Split, npt.NDArray[np.uint8]],
    labels: Mapping[Split, Sequence[str]] | None = None,
    *,
    names: Mapping[Split, Sequence[str]] | None = None,
    features: npt.NDArray[np.float32] | None = None,
    exactly: bool = False,
) -> Duplicates:
    """Return which images of some splits are the same picture.

    Args:
        images: Split → (N, R, R) or (N, R, R, 3) uint8, or volumes with one axis more.
        labels: Split → labels in words; of equal pictures with other ones it is told.
        names: Split → what the images are called.
        features: (N, D) of all images in the order of the splits, by which they are compared, too.
        exactly: Compare by equality only.

    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    >>> found = find_duplicates({"train": images[:4], "test": images[[0, 5]]})
    >>> [(str(pair.first), str(pair.second), pair.kind) for pair in found.pairs]
    [('train 0', 'test 0', 'equal')]
    """
    present: list[Split] = [split for split in SPLITS if split in images]
    search = DuplicateSearch(images[present[0]].shape[1], exactly)
    for split in present:
        search.add(split, images[split], (names or {}).get(split), (labels or {}).get(split))
    return search.found(features)
