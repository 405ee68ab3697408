"""Grey values of more than eight bits to eight: by a stored range, by a file's own window, or by what a picture has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, FiniteFloat

Values = npt.NDArray[Any]
Shown = npt.NDArray[np.float64]  # in [0, 255]
DEPTHS = (8, 10, 12, 14, 16)  # bits of the values that cameras and scanners give
MOST_BITS = 16
_CHUNK = 1 << 20  # values that are scaled together
INTENSITY_TEXT = "Grey values of more than eight bits that become 0 and 255, in the files' units; null is as files say."


class ValuesError(Exception):
    """Grey values that cannot be scaled; the message says why."""


def _rises(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError(f"{ends[0]:g} to {ends[1]:g} is no range; the second has to be above the first")
    return ends


Intensity = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rises)]  # what becomes 0, and what 255
Range = tuple[float, float]
WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Window:
    """A window of DICOM's VOI LUT module (PS3.3, C.11.2.1.2 and C.11.2.1.3).

    Attributes:
        centre: Value in its middle.
        width: From black to white; above 0, and of `LINEAR` at least 1.
        function: Its shape.
    """

    centre: float
    width: float
    function: WindowFunction = "LINEAR"

    def __call__(self, values: Values) -> Shown:
        """Return values of any shape in [0, 255].

        >>> Window(100, 101)(np.array([49, 99.5, 200])).tolist()
        [0.0, 127.5, 255.0]
        """
        given = np.asarray(values, dtype=np.float64)
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                return 255 / (1 + np.exp(-4 * (given - self.centre) / self.width))
        exact = self.function == "LINEAR_EXACT"
        centre, width = (self.centre, self.width) if exact else (self.centre - 0.5, self.width - 1)
        if width == 0:
            return np.where(given > centre, 255.0, 0.0)
        return np.clip((given - centre) / width + 0.5, 0, 1) * 255


@dataclass(frozen=True)
class Table:
    """A table of what to show for each value; those below and above it are shown as its ends.

    Attributes:
        first: The value of the first entry.
        entries: (n,) in [0, 255].
    """

    first: int
    entries: Shown

    def __call__(self, values: Values) -> Shown:
        """Return values of any shape in [0, 255]."""
        places = np.clip(np.asarray(values, dtype=np.float64) - self.first, 0, len(self.entries) - 1)
        return self.entries[np.rint(places).astype(np.int64)]


@dataclass(frozen=True)
class Presentation:
    """How a file says that its grey values are shown.

    Attributes:
        show: Values → [0, 255]; None if it does not say.
        inverted: The smallest value is white.
        padding: (H, W), where there is no value, which is black.
        whole: The values are integers; None is as their type says.
    """

    show: Callable[[Values], Shown] | None = None
    inverted: bool = False
    padding: npt.NDArray[np.bool_] | None = None
    whole: bool | None = None


def to_eight_bits(
    values: Values, intensity: Range | None = None, presentation: Presentation = Presentation()
) -> npt.NDArray[np.float32]:
    """Return deep grey values (H, W) as float32 in [0, 255].

    Args:
        values: Integers or floats.
        intensity: What becomes 0 and 255; None is the file's own window or table, or, without one, what `own_range`
            says.
        presentation: Of the file.

    Raises:
        ValuesError: If there is no finite value.
    """
    low, high = intensity or (0.0, 0.0)
    show = None if intensity is not None else presentation.show
    found = own_range(values, presentation)
    if intensity is None and show is None:
        low, high = shared_range([found])
    finite_low, finite_high = found[:2]
    scale = 255 / (high - low) if high > low else 0.0
    out = np.empty(values.shape, dtype=np.float32)
    step = max(1, _CHUNK // max(1, values.shape[1]))
    for start in range(0, len(values), step):  # a part at a time, since double precision takes room
        with np.errstate(invalid="ignore"):  # of NaN that signals
            part = values[start : start + step].astype(np.float64)
        part = np.nan_to_num(part, nan=finite_low, posinf=finite_high, neginf=finite_low)
        shown = (part - low) * scale if show is None else show(part)
        out[start : start + step] = np.clip(shown, 0, 255)
    if presentation.inverted:
        out = 255 - out
    if presentation.padding is not None:
        out[presentation.padding] = 0
    return out


def own_range(values: Values, presentation: Presentation = Presentation()) -> tuple[float, float, bool]:
    """Return the smallest and the largest value that is a number, and whether all are integers.

    Args:
        values: (H, W).
        presentation: Of the file.

    Raises:
        ValuesError: If no value is finite.
    """
    whole = values.dtype.kind != "f" if presentation.whole is None else presentation.whole
    if values.dtype.kind != "f" and presentation.padding is None:
        return float(values.min()), float(values.max()), whole
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(values)
    if presentation.padding is not None:
        finite &= ~presentation.padding
        if not finite.any():  # a picture of padding alone, which is black
            return 0.0, 0.0, whole
    if not finite.any():
        raise ValuesError("has no finite value")
    if values.dtype.kind != "f":
        inside = values[finite]
        return float(inside.min()), float(inside.max()), whole
    low, high = values.min(where=finite, initial=np.inf), values.max(where=finite, initial=-np.inf)
    return float(low), float(high), whole


def shared_range(found: list[tuple[float, float, bool]]) -> Range:
    """Return what becomes 0 and 255 in pictures that belong together.

    Integers from 0 to 65,535 are divided so that the largest number of 8, 10, 12, 14 or 16 bits becomes 255: the
    fewest bits that hold all of them. Others are scaled from their smallest to their largest.

    Args:
        found: What `own_range` says of each picture; at least one.

    >>> shared_range([(0, 200, True), (12, 3071, True)]), shared_range([(-1024.0, 1900.0, True)])
    ((0.0, 4095.0), (-1024.0, 1900.0))
    """
    low, high = min(each[0] for each in found), max(each[1] for each in found)
    if all(each[2] for each in found) and low >= 0 and high < 1 << MOST_BITS:
        bits = next(bits for bits in DEPTHS if high < 1 << bits)
        return 0.0, float((1 << bits) - 1)
    return low, high
