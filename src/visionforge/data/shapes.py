"""Rendered scenes of simple shapes on a noisy ground, with the mask of their pixels and a box around each."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NAMES = ("disc", "square", "triangle", "ring", "cross", "bar")
MOST_SHAPES = 4  # of an image; at least one
NOISE = 0.06
LEAST_SIDE, LARGEST_SIDE = 0.18, 0.36  # of a shape, as shares of the image's
_TRIES = 20  # to find a place where it covers no other


@dataclass(frozen=True)
class Scenes:
    """Images and what is in them.

    Attributes:
        images: (N, R, R, C) uint8.
        masks: (N, R, R) uint8; 0 is the ground, k the k-th kind of shape.
        boxes: (M, 6) float64, for each shape its image, its kind from 0, and x1, y1, x2, y2 in pixels.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float64]


def shape_names(kinds: int) -> tuple[str, ...]:
    """Return the names of so many kinds of shapes; those beyond the sixth differ from the first ones in their grey."""
    return tuple(
        NAMES[kind] if kind < len(NAMES) else f"{NAMES[kind % len(NAMES)]} {kind // len(NAMES) + 1}"
        for kind in range(kinds)
    )


def render_shapes(generator: np.random.Generator, images: int, kinds: int, resolution: int, channels: int) -> Scenes:
    """Render scenes of one to four shapes that do not overlap.

    Args:
        generator: All randomness.
        images: Number of images N.
        kinds: Number of kinds of shapes.
        resolution: Height and width R in pixels.
        channels: 1 or 3.
    """
    pixels = np.empty((images, resolution, resolution, channels), np.uint8)
    masks = np.zeros((images, resolution, resolution), np.uint8)
    boxes: list[tuple[float, ...]] = []
    for index in range(images):
        grey = np.full((resolution, resolution), generator.uniform(0.1, 0.3))
        for _ in range(generator.integers(1, MOST_SHAPES + 1)):
            kind = int(generator.integers(kinds))
            drawn = _placed(generator, kind, masks[index])
            if drawn is None:
                continue
            masks[index][drawn] = kind + 1
            grey[drawn] = 0.5 + 0.4 * generator.random() * 0.5 ** (kind // len(NAMES))
            rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
            boxes.append((index, kind, columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        tint = generator.uniform(0.8, 1.0, channels)
        noise = generator.normal(0, NOISE, (resolution, resolution, channels))
        pixels[index] = np.rint(np.clip(grey[..., None] * tint + noise, 0, 1) * 255)
    return Scenes(pixels, masks, np.array(boxes, np.float64).reshape(-1, 6))


def _placed(generator: np.random.Generator, kind: int, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
    """Return (R, R) the pixels of a shape that covers no other and lies within the image; None if there is no room."""
    resolution = len(mask)
    axis = np.arange(resolution) + 0.5
    for _ in range(_TRIES):
        half = generator.uniform(LEAST_SIDE, LARGEST_SIDE) * resolution / 2
        cx, cy = generator.uniform(half, resolution - half, 2)
        shape = _inside(kind, (axis[None, :] - cx) / half, (axis[:, None] - cy) / half)
        if shape.any() and not (mask[shape] > 0).any():
            return shape
    return None


def _inside(kind: int, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which pixels lie in a shape that reaches from -1 to 1."""
    distance, widest = np.hypot(x, y), np.maximum(abs(x), abs(y))
    name = NAMES[kind % len(NAMES)]
    found = {
        "disc": distance <= 1,
        "square": widest <= 0.9,
        "triangle": (y <= 0.9) & (abs(x) <= (y + 1) / 2),
        "ring": (distance <= 1) & (distance >= 0.55),
        "cross": (widest <= 1) & (np.minimum(abs(x), abs(y)) <= 0.3),
        "bar": (abs(y) <= 0.35) & (abs(x) <= 1),
    }
    return np.asarray(found[name])
