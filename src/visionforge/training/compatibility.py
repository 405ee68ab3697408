"""Whether a checkpoint's network is the one that data and settings ask for, told in one line per difference."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from visionforge.config.schema import Backbone, Decoder, Detector, Loss, ModelSettings, Task
from visionforge.config.stored import of_known_parts
from visionforge.data.info import TaskSpec
from visionforge.errors import SettingsError
from visionforge.models.registry import backbone_entry
from visionforge.training.criterion import is_cumulative

_SPEC_IDENTITY = ("task", "classes", "channels", "spatial_dims")  # what a network cannot be moved across


def differences(network: TaskSpec, data: TaskSpec) -> list[str]:
    """Return a line for everything that keeps a network made for one task from another task's data."""
    return [
        f"data.dataset: {data.dataset} has {name} {theirs}, the network was made for {mine}"
        for name in _SPEC_IDENTITY
        if (mine := getattr(network, name)) != (theirs := getattr(data, name))
    ]


def resize_differences(network: TaskSpec, data: TaskSpec) -> list[str]:
    """Return a line if data ask for a size that a network, which brings its own, does not read."""
    if data.resize.size is None or data.resize == network.resize:
        return []
    return [
        f"data.resize: {data.resize.mode} to {data.resize.size} asked for, the network was made for "
        f"{network.resized_text}; leave it out, the network resizes by itself"
    ]


def check_compatible(stored: Mapping[str, Any], spec: TaskSpec, settings: ModelSettings) -> None:
    """Raise if a checkpoint does not fit.

    Args:
        stored: The checkpoint's hyperparameters.
        spec: The task at hand.
        settings: The settings at hand.

    Raises:
        SettingsError: With a line for every difference.
    """
    try:
        theirs = TaskSpec.model_validate(plain(stored["spec"]))
        known = of_known_parts({"model": {"loss": stored["loss"]}})["model"]
        backbone, loss = Backbone.model_validate(stored["backbone"]), Loss.model_validate(known.get("loss", {}))
        above = _differences_above(stored, settings, spec.kind) if theirs.task == spec.task else []
    except (ValidationError, KeyError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else type(error).__name__
        raise SettingsError(f"ckpt_path: what the checkpoint says of its network cannot be used ({reason})") from error
    problems = differences(theirs, spec)
    mine = settings.backbone
    if mine.name != backbone.name:
        problems.append(f"model.backbone.name: {mine.name} asked for, the checkpoint has {backbone.name}")
    elif not backbone_entry(mine.name).same_shape(
        (spec.network_resolution, mine.adapt_stem),
        (theirs.network_resolution, backbone.adapt_stem),
        spec.spatial_dims,
    ):
        name = "data.resolution" if spec.resize.size is None else "data.resize.size"
        problems.append(
            f"{name}: {spec.network_resolution} needs another network than the checkpoint has, "
            f"which was trained at {theirs.network_resolution} (model.backbone.adapt_stem {backbone.adapt_stem})"
        )
    if mine.normalisation != backbone.normalisation:
        problems.append(
            f"model.backbone.normalisation: {mine.normalisation} asked for, the checkpoint has {backbone.normalisation}"
        )
    if mine.volume_convolution != backbone.volume_convolution:
        problems.append(
            f"model.backbone.volume_convolution: {mine.volume_convolution} asked for, the checkpoint has "
            f"{backbone.volume_convolution}"
        )
    problems += above
    asked, has = settings.loss.of_task(spec.task).name, loss.of_task(theirs.task).name
    if theirs.task == spec.task and is_cumulative(asked) != is_cumulative(has):
        problems.append(f"model.loss.name: {asked} asked for, the checkpoint has the outputs of {has}")
    if problems:
        raise SettingsError(problems)


def _differences_above(stored: Mapping[str, Any], settings: ModelSettings, kind: Task) -> list[str]:
    """Return a line for everything in which a decoder or detector is another than the checkpoint's.

    What says only how a trained network is used may differ.

    Raises:
        ValidationError: If what the checkpoint says of them cannot be used.
    """
    problems = []
    for part, there, base in (("decoder", kind.decodes, Decoder), ("detector", kind.detects, Detector)):
        if not there:
            continue
        mine, said = getattr(settings, part), stored.get(part, {})  # checkpoints from before there were any have none
        name = said.get("name", base.family.default) if isinstance(said, Mapping) else said
        if name != mine.name:
            problems.append(f"model.{part}.name: {mine.name} asked for, the checkpoint has {name}")
            continue
        has = base.model_validate(of_known_parts({"model": {part: plain(said)}})["model"][part])
        problems += [
            f"model.{part}.{field}: {asked} asked for, the checkpoint has {given}"
            for field in type(mine).model_fields
            if field not in mine.adjustable and (asked := getattr(mine, field)) != (given := getattr(has, field))
        ]
    return problems


def plain(value: Any) -> Any:
    """Turn models into dictionaries, so that they are validated anew."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value
