"""Colours of classes that stay apart for colour-blind readers, too: Okabe and Ito's first, then further ones."""

from functools import cache

import numpy as np
import numpy.typing as npt

Colours = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# Okabe and Ito (2008) without black, which nothing tells from a dark picture
_OKABE_ITO = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)],
    dtype=np.uint8,
)
# What protanopes and deuteranopes see, in linear RGB: Viénot, Brettel and Mollon (1999), Color Res. Appl. 24(4)
_SEEN_BY = (
    np.eye(3),
    np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
)
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of sRGB, D65
_LEVELS = 9  # of each channel of the colours that are tried
_LIGHTEST, _DARKEST = 92, 30  # L* of them; beyond, they are lost in white or black


def class_colours(count: int) -> Colours:
    """Return (K, 3) uint8 RGB colours of classes; the first ones are the same for any count.

    After the seven of Okabe and Ito (2008), each further one is the colour that is farthest, in CIELAB, from all before
    it, as the nearest of three readers sees it: with full colour vision, without red, and without green receptors.
    Beyond some fifteen classes no colours are told apart with ease; names have to help.

    Args:
        count: Number of classes K, the background included where there is one.

    Raises:
        ValueError: If the count is below 0.
    """
    if count < 0:
        raise ValueError(f"count: {count} is not allowed; allowed: a number of classes, at least 0")
    chosen = list(_OKABE_ITO[:count])
    if count > len(chosen):
        candidates, seen = _candidates()
        nearest = np.min([_distances(seen, colour[None]) for colour in chosen], axis=0)
    while len(chosen) < count:
        best = int(nearest.argmax()) if nearest.max() > 0 else len(chosen) % len(candidates)  # none is left: again
        chosen.append(candidates[best])
        nearest = np.minimum(nearest, _distances(seen, candidates[best : best + 1]))
    return np.array(chosen, dtype=np.uint8).reshape(-1, 3)


def least_distance(one: Colours, other: Colours) -> float:
    """Return the distance of two colours (3,) in CIELAB as the reader sees it who tells them apart the least."""
    return float(_distances(_seen(one[None]), other[None])[0])


def on_top(colour: Colours) -> tuple[int, int, int]:
    """Return black or white, whichever can be read on a colour (3,)."""
    return (0, 0, 0) if _lab(colour[None] / 255)[0, 0] > 55 else (255, 255, 255)


@cache
def _candidates() -> tuple[Colours, Floats]:
    """Return colours (M, 3) to choose from, and how they are seen, (3, M, 3) CIELAB."""
    levels = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    every = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = _lab(every / 255)[:, 0]
    every = every[(lightness >= _DARKEST) & (lightness <= _LIGHTEST)]
    return every, _seen(every)


def _distances(seen: Floats, colour: npt.NDArray[np.integer]) -> Floats:
    """Return (M,) least distances of colours, seen as (3, M, 3), to one (1, 3)."""
    found: Floats = np.sqrt(((seen - _seen(colour)) ** 2).sum(axis=-1)).min(axis=0)
    return found


def _seen(colours: npt.NDArray[np.integer]) -> Floats:
    """Return (3, M, 3) CIELAB of colours (M, 3) as the three readers see them."""
    linear = _linear(colours / 255)
    return np.stack([_lab_of_linear(np.clip(linear @ matrix.T, 0, 1)) for matrix in _SEEN_BY])


def _linear(colours: Floats) -> Floats:
    """Return sRGB values, 0 to 1, as amounts of light."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def _lab(colours: Floats) -> Floats:
    return _lab_of_linear(_linear(colours))


def _lab_of_linear(linear: Floats) -> Floats:
    ratios = linear @ _TO_XYZ.T / _TO_XYZ.sum(axis=1)  # to white
    bent = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = bent.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
