"""What pixels are normalised by: constants of the data, or those that published weights expect."""

from visionforge.config.rules import unpublished_constants
from visionforge.config.schema import Backbone
from visionforge.data.info import TaskSpec
from visionforge.errors import SettingsError
from visionforge.models.registry import backbone_entry


def with_constants(spec: TaskSpec, settings: Backbone) -> TaskSpec:
    """Return a task with the constants that the backbone's settings ask for.

    Raises:
        SettingsError: If they are those of published weights, and there are none.
    """
    if settings.normalisation == "dataset":
        return spec
    entry = backbone_entry(settings.name)
    if not entry.has_published_weights:
        raise SettingsError(unpublished_constants(settings.name))
    mean, std = entry.pixel_constants(spec.channels)
    return spec.model_copy(update={"mean": mean, "std": std})
