"""What the networks of an ensemble read; nothing of it needs torch."""

from typing import Self

from pydantic import Field, ValidationError

from visionforge.config.schema import Resize
from visionforge.config.schema.base import Section
from visionforge.data.info import TaskSpec
from visionforge.errors import SettingsError

MOST_MEMBERS = 100


class MemberInput(Section):
    """What a network of an ensemble reads of the images that all share."""

    mean: tuple[float, ...] = Field(min_length=1, max_length=3, description="Mean per channel, of values in [0, 1].")
    std: tuple[float, ...] = Field(min_length=1, max_length=3, description="Standard deviation per channel.")
    resize: Resize = Field(default=Resize(), description="The size that it reads.")

    @classmethod
    def of(cls, spec: TaskSpec) -> Self:
        """Return what the network of a task reads."""
        return cls(mean=spec.mean, std=spec.std, resize=spec.resize)

    def applied(self, spec: TaskSpec) -> TaskSpec:
        """Return a task with these pixels.

        Raises:
            SettingsError: If they do not fit its images.
        """
        own = {"mean": self.mean, "std": self.std, "resize": self.resize.model_dump()}
        try:
            return TaskSpec.model_validate({**spec.model_dump(), **own})
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise SettingsError(f"ensemble: what one of its networks reads cannot be used ({reason})") from error
