"""Check a whole configuration before anything heavy is imported, downloaded or built, and tell all mistakes at once."""

import ast
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from visionforge.config.imports import import_modules
from visionforge.config.loading import RawConfig
from visionforge.config.problems import unknown_setting, validation_problems
from visionforge.config.resizing import network_resolution
from visionforge.config.rules import BackboneFacts, DatasetFacts, DeviceFacts, Facts, check_rules
from visionforge.config.schema import Backbone, DataSettings, RunSettings
from visionforge.config.schema.data import FOLD_POOLS
from visionforge.config.schema.model import AUTO as UNSETTLED
from visionforge.data.registry import dataset_info
from visionforge.engine.loggers import logger_problems
from visionforge.errors import SettingsError, VisionForgeError
from visionforge.models.first_weights import expected_pretrained, is_pretrained
from visionforge.models.registry import backbone_entry, backbones_taking
from visionforge.redaction import hidden_settings
from visionforge.runs.config_hash import PATHS
from visionforge.runs.paths import is_anchored, resolve
from visionforge.runs.provenance import fast_bfloat16

AUTO = "auto"  # of `trainer.precision`
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 60,
    "accelerator": "auto",
    "devices": "auto",
    "precision": "32-true",
    "deterministic": False,
    "enable_model_summary": False,  # one line in the log says as much
    "log_every_n_steps": 1,  # epochs of small data sets are shorter than Lightning's default of 50 steps
    "num_sanity_val_steps": 0,  # the archive is verified; metrics of two batches would only mislead
}
_GPUS = ("gpu", "cuda", "mps")  # as trainer.accelerator
_OF_NETWORKS = ("fit", "validate", "test", "predict")  # stages that follow it


@cache
def trainer_constructor() -> ast.FunctionDef:
    """Return the constructor of Lightning's Trainer, read from its source: importing it would take seconds."""
    package = find_spec("lightning")
    assert package is not None
    assert package.submodule_search_locations is not None
    source = Path(package.submodule_search_locations[0]) / "pytorch" / "trainer" / "trainer.py"
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == "Trainer":
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    return item
    raise AssertionError(f"{source} defines no Trainer.__init__")


def trainer_flags() -> tuple[str, ...]:
    """Return the names of the Trainer's flags."""
    return tuple(argument.arg for argument in trainer_constructor().args.kwonlyargs)


def check_settings(
    values: Mapping[str, Any],
    stage: str,
    sources: Mapping[str, str] | None = None,
    rules: bool = True,
    here: bool = True,
) -> RunSettings:
    """Validate nested settings and the rules that span them.

    Args:
        values: Nested settings as written; what is missing takes its default.
        stage: The command, such as `fit`.
        sources: Dotted path → where it was written, for the messages.
        rules: Whether the rules that span settings are checked, too; of a matrix they hold cell by cell.
        here: Whether this machine is the one that works; of another the device is not known, and nobody is asked for
            weights.

    Returns:
        The complete settings.

    Raises:
        SettingsError: With one line for every mistake.
    """
    flags = [f"trainer.{name}" for name in trainer_flags()]
    problems = _import_problems(values.get("imports"))
    settings = None
    try:
        settings = RunSettings.model_validate(dict(values))
    except ValidationError as error:
        problems += validation_problems(error, RunSettings, sources=sources, extra_keys=flags, values=values)
    trainer = values.get("trainer")
    for key in trainer if isinstance(trainer, Mapping) else ():
        name = f"trainer.{key}"
        if name not in flags:
            where = f" ({sources[name]})" if sources and name in sources else ""
            problems.append(unknown_setting(name, flags, where))
    problems += logger_problems(trainer.get("logger") if isinstance(trainer, Mapping) else None)
    problems += [
        f"{path}: a secret that is not stored with a run; give it again, or keep it in an environment variable"
        for path in hidden_settings(trainer, "trainer")
    ]
    unknown = _lookup_problems(values)
    problems += unknown + _path_problems(values)
    if settings is not None and here:
        problems += _accelerator_problems(settings.trainer.accelerator)
        settings = with_precision(settings, stage)
    if settings is None or not rules or unknown:  # the rules need complete settings, and what they name has to exist
        if problems or settings is None:
            raise SettingsError(problems)
        return settings
    settled = with_weights(settings, expected_pretrained)
    if problems := [*problems, *check_rules(settled, gather_facts(settled, here), stage)]:
        raise SettingsError(problems)
    if settings.model.backbone.pretrained != UNSETTLED or stage != "fit" or not here:
        return settled
    settled = with_weights(settings, is_pretrained)  # which may ask the host of the weights
    if problems := check_rules(settled, gather_facts(settled), stage):
        raise SettingsError(problems)
    return settled


def _import_problems(names: Any) -> list[str]:
    """Import what the user has named, and return a line for each that cannot be."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return []  # the check of the settings tells of it
    try:
        import_modules(names)
    except SettingsError as error:
        return list(error.problems)
    return []


def settings_of(config: Mapping[str, Any]) -> RunSettings:
    """Return a stored configuration as settings; what it names is not looked up.

    Raises:
        SettingsError: With a line for every value that is not allowed.
    """
    try:
        return RunSettings.model_validate(dict(config))
    except ValidationError as error:
        raise SettingsError(validation_problems(error, RunSettings)) from error


def check_arguments(raw: RawConfig, stage: str, here: bool = True) -> RunSettings:
    """Validate what `read_arguments` has read; see `check_settings`."""
    return check_settings(raw.values, stage, raw.sources, here=here)


def _value_at(values: Mapping[str, Any], path: str) -> Any:
    value: Any = values
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _path_problems(values: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    for path in PATHS:
        value = _value_at(values, path)
        if isinstance(value, str) and (is_anchored(value) or path != "model.backbone.weights"):
            try:
                resolve(value)
            except ValueError as error:
                problems.append(f"{path}: {error}")
    return problems


def _lookup_problems(values: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    for path, look_up in (("data.dataset", dataset_info), ("model.backbone.name", backbone_entry)):
        value = _value_at(values, path)
        if isinstance(value, str):
            try:
                look_up(value)
            except VisionForgeError as error:
                problems += error.problems
    return problems


def _accelerator_problems(accelerator: str) -> list[str]:
    """Return a line if a GPU is asked for that is not here; what else Lightning knows by name, it tells of itself."""
    if accelerator not in _GPUS or device_facts(accelerator) is not None:
        return []
    there = [name for name in _GPUS if device_facts(name) is not None]
    return [f"trainer.accelerator: {accelerator} is not here; allowed here: {', '.join(['auto', 'cpu', *there])}"]


def gather_facts(settings: RunSettings, here: bool = True) -> Facts:
    """Look up what the rules need to know of data set, backbone and device.

    Args:
        settings: The settings.
        here: Whether the device is one of this machine's.

    Raises:
        SettingsError: If the data set or the backbone is unknown.
    """
    info = dataset_info(settings.data.dataset, settings.data.synthetic)
    dims = info.spatial_dims
    train = training_images(settings.data, info.splits.model_dump())
    dataset = DatasetFacts(info.name, info.channels, train, info.resolutions, info.task, info.classes, dims)
    return Facts(dataset, _backbone_facts(settings, dims), _device_facts(settings) if here else None)


def training_images(data: DataSettings, splits: Mapping[str, int]) -> int:
    """Return about how many training images there are: those of the split, or of all folds that are not held out."""
    if data.folds is None:
        return splits["train"]
    pool = FOLD_POOLS[data.fold_pool]
    held = 2 if "test" in pool else 1
    return sum(splits[split] for split in pool) * max(1, data.folds - held) // data.folds


def _backbone_facts(settings: RunSettings, spatial_dims: int) -> BackboneFacts:
    chosen = settings.model.backbone
    entry = backbone_entry(chosen.name)
    resolution, adapt = network_resolution(settings.data.resize, settings.data.resolution), chosen.adapt_stem
    return BackboneFacts(
        name=entry.name,
        min_resolution=entry.min_resolution if chosen.adapt_stem else entry.min_resolution_standard,
        has_published_weights=entry.has_published_weights,
        final_map=entry.final_map(resolution, adapt, spatial_dims),
        multiple_of=entry.multiple_of(resolution, adapt, spatial_dims),
        spatial_dims=entry.spatial_dims,
        inflates=entry.inflates,
        takers=tuple(backbones_taking(spatial_dims)),
    )


def with_precision(settings: RunSettings, stage: str) -> RunSettings:
    """Return settings whose `trainer.precision: auto` is what the device is fastest in without being less stable.

    That is bf16-mixed where the device multiplies in bfloat16, whose range is that of float32, so that nothing has to
    be scaled as in 16-mixed; and 32-true elsewhere, and where features are computed, which are kept for all devices.

    Args:
        settings: The settings; with another precision they are returned as they are.
        stage: The command.
    """
    if settings.trainer.precision != AUTO:
        return settings
    device = device_facts(settings.trainer.accelerator) if stage in _OF_NETWORKS else None
    precision = "bf16-mixed" if device is not None and device.fast_bfloat16 else "32-true"
    return settings.model_copy(update={"trainer": settings.trainer.model_copy(update={"precision": precision})})


def with_weights(settings: RunSettings, answer: Callable[[Backbone, int], tuple[bool, str | None]]) -> RunSettings:
    """Return settings whose `model.backbone.pretrained: auto` is what it means, and which remember why it means false.

    Args:
        settings: The settings; with true or false they are returned as they are.
        answer: Says what it means for a backbone and a number of channels, and why not.
    """
    backbone = settings.model.backbone
    if backbone.pretrained != UNSETTLED:
        return settings
    channels = 3 if settings.data.force_rgb else dataset_info(settings.data.dataset, settings.data.synthetic).channels
    brings, reason = answer(backbone, channels)
    settled = backbone.model_copy(update={"pretrained": brings})
    settled._from_scratch = reason
    return settings.model_copy(update={"model": settings.model.model_copy(update={"backbone": settled})})


def _device_facts(settings: RunSettings) -> DeviceFacts | None:
    """Return facts on the training device; only what depends on it is worth importing torch for."""
    sync = (settings.trainer.model_extra or {}).get("sync_batchnorm")
    graphs = settings.model.cuda_graphs
    if not sync and not graphs and not str(settings.trainer.precision).startswith(("16", "bf16")):
        return None
    return device_facts(settings.trainer.accelerator)


def device_facts(accelerator: str) -> DeviceFacts | None:
    """Return facts on the device that `trainer.accelerator` means; None of one that is not known here."""
    cpu = DeviceFacts("the CPU", float16=False, bfloat16=True, fast_bfloat16=fast_bfloat16())
    if accelerator == "cpu":
        return cpu
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        name, bfloat16 = torch.cuda.get_device_name(), torch.cuda.is_bf16_supported()
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return DeviceFacts(name, float16=True, bfloat16=bfloat16, gpu=True, fast_bfloat16=native)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return DeviceFacts("the Apple GPU", float16=True, bfloat16=True)
    return cpu if accelerator == "auto" else None
