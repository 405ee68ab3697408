"""A name, or a mapping, in place of a settings object: `optimizer="adamw"` is `Optimizer(name="adamw")`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from visionforge.config.functions import with_names
from visionforge.config.problems import validation_problems
from visionforge.config.schema import (
    Averaging,
    Backbone,
    Decoder,
    Detector,
    Distillation,
    Finetuning,
    Loss,
    Mixing,
    ModelSettings,
    Optimizer,
    Schedule,
)
from visionforge.config.stored import of_known_parts
from visionforge.data.info import TaskSpec
from visionforge.errors import SettingsError
from visionforge.models.registry import backbone_entry
from visionforge.training.compatibility import plain
from visionforge.training.ensemble import MOST_MEMBERS

if TYPE_CHECKING:
    BackboneLike = Backbone | Mapping[str, Any] | str
    DecoderLike = Decoder | Mapping[str, Any] | str
    DetectorLike = Detector | Mapping[str, Any] | str
    DistillationLike = Distillation | Mapping[str, Any]
    FinetuningLike = Finetuning | Mapping[str, Any]
    OptimizerLike = Optimizer | Mapping[str, Any] | str
    ScheduleLike = Schedule | Mapping[str, Any] | str
    LossLike = Loss | Mapping[str, Any] | str
    MixUpLike = Mixing | Mapping[str, Any] | str
    AveragingLike = Averaging | Mapping[str, Any] | str
else:  # the command line derives its flags from these
    BackboneLike, DistillationLike, FinetuningLike = Backbone, Distillation, Finetuning
    DecoderLike = DetectorLike = OptimizerLike = ScheduleLike = LossLike = MixUpLike = AveragingLike = (
        dict[str, Any] | str
    )  # of whichever kind


def as_sections(given: Mapping[str, Any], restoring: bool = False) -> dict[str, Any]:
    """Return the sections of a model as plain values that can be validated.

    Args:
        given: Section → settings, a mapping, or a name.
        restoring: They come from a checkpoint: what they say of parts that are not known here is left out.

    Raises:
        SettingsError: If a backbone that is only named is unknown; the nearest names are in the message.
    """
    sections = dict(plain(with_names(given, "model")))
    if restoring:
        sections = dict(of_known_parts({"model": sections})["model"])
    if isinstance(name := sections["backbone"], str):
        published = backbone_entry(name).has_published_weights
        sections["backbone"] = {"name": name} if published else {"name": name, "pretrained": False}
    return sections


def read_settings(given: Mapping[str, Any], restoring: bool = False) -> ModelSettings:
    """Return the settings that sections mean; see `as_sections`.

    Raises:
        SettingsError: If a value is out of its bounds, or a name is unknown.
    """
    written = as_sections(given, restoring)
    try:
        return ModelSettings.model_validate(written)
    except ValidationError as error:
        raise SettingsError(validation_problems(error, ModelSettings, "model.", values=written)) from error


def read_members(given: Any) -> tuple[ModelSettings, ...]:
    """Return the settings of the networks of an ensemble, as a checkpoint of a stranger has them; none of one network.

    Raises:
        SettingsError: If they are no settings, or too many.
    """
    if not given:
        return ()
    if not isinstance(given, list | tuple) or len(given) > MOST_MEMBERS:
        raise SettingsError(f"the checkpoint's members are no list of at most {MOST_MEMBERS} settings")
    if not all(isinstance(each, Mapping) and "backbone" in each for each in given):
        raise SettingsError("what the checkpoint says of its members cannot be used")
    return tuple(read_settings(each, restoring=True) for each in given)


def read_spec(given: TaskSpec | Mapping[str, Any] | None) -> TaskSpec | None:
    """Return a task that was given as such or as a mapping.

    Raises:
        SettingsError: If a value is not allowed.
    """
    try:
        return None if given is None else TaskSpec.model_validate(plain(given))
    except ValidationError as error:
        raise SettingsError(validation_problems(error, TaskSpec, "spec.")) from error
