"""What images and volumes ask of the settings: the same rules for settings files and for functions."""

from collections.abc import Iterator, Sequence

from visionforge.config.schema import Backbone, DataSettings
from visionforge.config.schema.data import MAX_VOLUME_RESOLUTION

_WHAT = {2: "images", 3: "volumes"}


def dimension_problems(
    settings: Backbone, spatial_dims: int, taken: Sequence[int], inflates: bool, takers: Sequence[str]
) -> Iterator[str]:
    """Yield a line for everything in the backbone's settings that does not fit the data.

    Args:
        settings: The backbone's settings.
        spatial_dims: Of the data: 2 for images, 3 for volumes.
        taken: Those that the backbone takes.
        inflates: Whether its form for volumes is made of the one for images, by a convolution that can be chosen.
        takers: Names of backbones that take the data.
    """
    what, default = _WHAT[spatial_dims], Backbone.model_fields["volume_convolution"].default
    if spatial_dims not in taken:
        yield f"model.backbone.name: {settings.name} does not take {what}; allowed: {', '.join(takers)}"
        return
    if settings.volume_convolution == default:
        return
    given = f"model.backbone.volume_convolution: {settings.volume_convolution}"
    if spatial_dims == 2:
        yield f"{given} is for volumes, the data are images; leave it out"
    elif not inflates:
        yield f"{given} would be ignored, because {settings.name} is built for volumes as it is; leave it out"


def volume_problems(name: str, spatial_dims: int, data: DataSettings) -> list[str]:
    """Return a line for each setting of the data that has no meaning for images, or for volumes.

    Args:
        name: Catalog name.
        spatial_dims: 2 if the data set has images, 3 for volumes.
        data: The settings.
    """
    problems = []
    if spatial_dims == 2 and data.augmentation.dflip > 0:
        problems.append(
            f"data.augmentation.dflip: {data.augmentation.dflip:g} is not allowed, because {name} has images, which "
            "have no front and back; allowed: 0"
        )
    if spatial_dims == 3 and data.resolution > MAX_VOLUME_RESOLUTION:
        problems.append(
            f"data.resolution: {data.resolution} is not allowed, because {name} has volumes; at most "
            f"{MAX_VOLUME_RESOLUTION}"
        )
    return problems
