"""Corruptions of images, known by name: what a trained network is tested with, never trained with.

They are of the kind of ImageNet-C (Hendrycks and Dietterich, 2019, arXiv:1903.12261) and MedMNIST-C (Di Salvo et al.,
2024, arXiv:2406.17536), written anew for whole batches. Those of this package lie in `visionforge.data.corruptions`;
another is known by name where somebody registers it.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from visionforge.config.problems import nearest
from visionforge.config.schema.components import Component, Family, register
from visionforge.data.info import DomainFlags
from visionforge.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws

MOST_SEVERITIES = 5
REFERENCE = 28  # pixels; the resolution at which the tables of severities hold as they stand


class Corruption(Component):
    """A change of images that a person still reads, in up to five severities.

    A kind has `apply`. Its strengths are those of images of 28 pixels; at R pixels each is multiplied by
    (R / 28)^`grows`, so that lengths grow with the image, and larger images, which bear more, get more.
    """

    family: ClassVar[Family] = Family("robustness.corruptions", "", "visionforge.data.corruptions", "a corruption")
    required: ClassVar[tuple[str, ...]] = ("apply",)
    group: ClassVar[str] = "other"  # what it is shown and averaged with
    colour: ClassVar[bool] = False  # it has a meaning for colour images only
    averaged: ClassVar[bool] = True  # it is part of the mean over corruptions
    grows: ClassVar[float] = 0.0
    unit: ClassVar[str] = ""  # of the strengths

    severities: tuple[float, ...] = Field(
        default=(1.0,), description="Strength of each severity at 28 pixels, from 1 on."
    )

    @model_validator(mode="after")
    def _strengths_are_some_numbers(self) -> Self:  # not a bound of the field, which kinds declare anew
        numbers = all(math.isfinite(strength) and strength >= 0 for strength in self.severities)
        if not numbers or not 1 <= len(self.severities) <= MOST_SEVERITIES:
            raise ValueError(
                f"severities: {self.severities} are not allowed; allowed: 1 to {MOST_SEVERITIES} finite numbers from 0"
            )
        return self

    def strength(self, severity: int, resolution: int) -> float:
        """Return the strength of a severity, counted from 1, for images of some height and width in pixels."""
        return self.severities[severity - 1] * float((resolution / REFERENCE) ** self.grows)

    def applies(self, channels: int, flags: DomainFlags) -> bool:
        """Return whether images of so many channels, whose labels keep under `flags`, are tested with it by default."""
        return channels == 3 or not self.colour

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Return corrupted images of the same shape; what leaves 0 to 1 is clipped afterwards.

        Args:
            images: (B, C, R, R) float32 from 0 to 1, which may be changed in place.
            strength: What `strength` gives.
            draws: All random numbers, one row for each image.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.apply")


CorruptionT = TypeVar("CorruptionT", bound=Corruption)


def register_corruption(kind: type[CorruptionT], replace: bool = False) -> type[CorruptionT]:
    """Make a corruption known, which `visionforge robustness` then runs; for use as a decorator.

    Args:
        kind: The class, with a name and strengths: ``name: Literal["mine"] = "mine"``.
        replace: Take the place of another class that was registered under this name before.

    Raises:
        TypeError: If it is no subclass of `Corruption`.
        ValueError: If the name is missing or taken, or `apply` is not defined.
    """
    return register(kind, Corruption, replace)


def corruption_names() -> tuple[str, ...]:
    """Return the names of all corruptions, the built-in ones first."""
    return Corruption.family.names


def chosen_corruptions(
    given: Sequence["str | Corruption"] | None, channels: int, flags: DomainFlags
) -> list[Corruption]:
    """Return the corruptions that are meant, each once.

    Args:
        given: Names, or corruptions with strengths of their own; None is every one that applies.
        channels: Channels of the images, 1 or 3.
        flags: Which changes keep their labels.

    Raises:
        SettingsError: If a name is unknown, or its corruption needs colour.
    """
    names = corruption_names()
    if given is None:
        every = [Corruption(name=name) for name in names]
        return [corruption for corruption in every if corruption.applies(channels, flags)]
    unknown = [str(each) for each in given if not isinstance(each, Corruption) and each not in names]
    if unknown or not given:
        close = nearest(unknown[0], names) if unknown else []
        hint = f"nearest: {', '.join(close)}; " if close else ""
        wrong = f"{unknown[0]!r} is unknown" if unknown else "there is none"
        raise SettingsError(f"corruptions: {wrong}; {hint}allowed: {', '.join(names)}")
    made = [Corruption(name=each) if isinstance(each, str) else each for each in given]
    for corruption in made:
        if corruption.colour and channels != 3:
            raise SettingsError(
                f"corruptions: {corruption.name} changes colours, and the images are grey; leave it out"
            )
    return list({corruption.name: corruption for corruption in made}.values())
