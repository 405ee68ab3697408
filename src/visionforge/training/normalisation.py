"""What pixels are normalised by: constants of the data, or those that published weights expect."""

from visionforge.config.rules import unpublished_constants
from visionforge.config.schema import Backbone
from visionforge.data.info import TaskSpec
from visionforge.errors import SettingsError
from visionforge.models.entry import per_channel
from visionforge.models.registry import backbone_entry
from visionforge.models.transfer import TransferReport


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


def with_constants_of(spec: TaskSpec, settings: Backbone, transfer: TransferReport | None) -> TaskSpec:
    """Return a task with the constants of the very weights that were taken over, where these say them.

    A repository's or a tag's may be others than the backbone's usual ones.
    """
    if settings.normalisation == "dataset" or transfer is None or not (transfer.mean and transfer.std):
        return spec
    mean, std = (per_channel(values, spec.channels) for values in (transfer.mean, transfer.std))
    return spec.model_copy(update={"mean": mean, "std": std})
