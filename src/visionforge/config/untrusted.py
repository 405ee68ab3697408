"""What is taken from a configuration that somebody else wrote: data, and of classes only some that can do no harm.

A configuration names classes in the section `trainer`, and Lightning imports and builds them. From a run folder that
may be a stranger's, an evaluation takes none at all; a training that is continued or repeated takes those in
`CALLBACKS`, with plain arguments. Everything else has to be allowed by the user.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from visionforge.config.problems import value_at
from visionforge.config.stored import of_known_parts, unknown_parts

# Flags of the Trainer that are one plain value, and that an evaluation of the same network shares with its training
_EVALUATION = (
    "accelerator",
    "benchmark",
    "detect_anomaly",
    "deterministic",
    "devices",
    "inference_mode",
    "max_epochs",
    "num_nodes",
    "precision",
    "strategy",
    "use_distributed_sampler",
)
_SPAN = r"\d{1,4}(?::\d{1,2}){3}"  # such as 00:12:00:00
# Flags of the Trainer that can be a word → the words that are taken. Of strategies these are Lightning's own and ours,
# without those that write to places outside the run; what other packages have registered under a name is theirs.
WORDS: dict[str, str] = {
    "accelerator": "auto|cpu|cuda|gpu|mps|tpu",
    "deterministic": "warn",
    "devices": r"auto|-1|\d{1,4}(?:,\d{1,4})*,?",
    "gradient_clip_algorithm": "norm|value",
    "max_time": _SPAN,
    "precision": "transformer-engine(?:-float16)?|(?:bf)?16(?:-true|-mixed)?|(?:32|64)(?:-true)?",
    "profiler": "simple|advanced",
    "strategy": "auto|single_device|deepspeed(?:_stage_[123])?|deepspeed_stage_[23]_offload|fsdp(?:_cpu_offload)?|"
    "fully_shard|ddp(?:_spawn|_fork|_notebook)?(?:_find_unused_parameters_(?:true|false))?|(?:single_)?xla|single_tpu",
    "val_check_interval": _SPAN,
}
_SPANS = ("max_time", "val_check_interval")  # which can be a mapping, such as {hours: 1}
# Flags in which another word names a class, or where the network is sent
_NAMING = ("accelerator", "callbacks", "logger", "model_registry", "plugins", "profiler", "strategy")
# Callbacks of Lightning's that write no file of their own choice and call nothing that an argument names → those
# arguments of theirs that are plain values
CALLBACKS: dict[str, tuple[str, ...]] = {
    "DeviceStatsMonitor": ("cpu_stats",),
    "EarlyStopping": (
        "monitor",
        "min_delta",
        "patience",
        "verbose",
        "mode",
        "strict",
        "check_finite",
        "stopping_threshold",
        "divergence_threshold",
        "check_on_train_epoch_end",
        "log_rank_zero_only",
    ),
    "LearningRateMonitor": ("logging_interval", "log_momentum", "log_weight_decay"),
    "ModelSummary": ("max_depth",),
    "RichModelSummary": ("max_depth",),
    "RichProgressBar": ("refresh_rate", "leave"),
    "TQDMProgressBar": ("refresh_rate", "process_position", "leave"),
    "Timer": ("duration", "interval", "verbose"),
}
_OF_LIGHTNING = re.compile(r"(?:(?:lightning\.pytorch|pytorch_lightning)\.callbacks\.(?:[a-z_.]+\.)?)?(\w+)")


def named_classes(config: Mapping[str, Any]) -> list[str]:
    """Return what a configuration would have built, such as ``trainer.callbacks.0: torch.optim.SGD``."""
    found = [f"imports: {name}" for name in _texts(config.get("imports"))] + unknown_parts(config)
    found += [f"{path}: {name}" for path, name in _walk(config, "")]
    trainer = config.get("trainer")
    flags = trainer if isinstance(trainer, Mapping) else {}
    for flag in _NAMING:
        value = flags.get(flag)
        for position, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, str) and not _is_plain(flag, item):
                found.append(f"trainer.{flag}{f'.{position}' if isinstance(value, list) else ''}: {item}")
    return found


def _walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield path, str(value["class_path"])
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _walk(item, f"{path}.{position}")


def for_evaluation(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a run's configuration that its evaluation needs: no classes, and no limits of its training.

    Args:
        config: The nested configuration, as it was read.
    """
    kept = {key: value for key, value in config.items() if key in ("data", "model", "evaluation", "seed_everything")}
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping):
        kept["trainer"] = {key: trainer[key] for key in _EVALUATION if key in trainer and _is_plain(key, trainer[key])}
    kept = of_known_parts(kept)
    if isinstance(model := kept.get("model"), Mapping):  # it asks no teacher, which may be gone
        kept["model"] = {name: value for name, value in model.items() if name != "distillation"}
    return kept


def for_training(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a training takes from a stranger's configuration, and a line for everything that it does not take.

    The loggers are left out without a line: they change no result, and would send it to wherever the stranger says.

    Args:
        config: The nested configuration, as it was read.
    """
    kept = {key: value for key, value in config.items() if key != "trainer"}
    refused = [f"imports: {name}" for name in _texts(kept.pop("imports", None))] + unknown_parts(kept)
    kept = of_known_parts(kept)
    for path, tags in (
        ("ckpt_path", False),
        ("model.backbone.weights", True),
        ("model.distillation.teacher", False),
        ("probe.network", False),
    ):
        value = value_at(kept, path)
        if isinstance(value, str) and not (tags and _is_tag(value)):
            refused.append(f"{path}: {value}")
    trainer = config.get("trainer")
    if not isinstance(trainer, Mapping):
        return kept, [*refused, *([] if trainer is None else [f"trainer: {_named(trainer)}"])]
    flags: dict[str, Any] = {}
    for name, value in trainer.items():
        if name == "callbacks":
            items = value if isinstance(value, list) else [] if value is None else [value]
            refused += [problem for at, item in enumerate(items) for problem in _callback_problems(item, at)]
            flags[name] = value
        elif name in ("logger", "default_root_dir"):
            continue
        elif not _is_plain(name, value):
            refused.append(f"trainer.{name}: {_named(value)}")
        else:
            flags[name] = value
    return {**kept, "trainer": flags}, refused


def plain_callbacks(value: Any) -> list[Any] | None:
    """Return those of a configuration's callbacks that are in `CALLBACKS`, with plain arguments; None of none."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [item for at, item in enumerate(items) if not _callback_problems(item, at)] or None


def _texts(value: Any) -> list[str]:
    return [
        str(item)[:200] for item in (value if isinstance(value, list | tuple) else [] if value is None else [value])
    ]


def _callback_problems(item: Any, position: int) -> list[str]:
    where = f"trainer.callbacks.{position}"
    name = item.get("class_path") if isinstance(item, Mapping) else item
    match = _OF_LIGHTNING.fullmatch(name) if isinstance(name, str) else None
    if match is None or match[1] not in CALLBACKS:
        return [f"{where}: {_named(item)}"]
    given = item.get("init_args") if isinstance(item, Mapping) else None
    if isinstance(item, Mapping) and set(item) - {"class_path", "init_args"}:
        return [f"{where}: {_named(item)}"]
    known = CALLBACKS[match[1]]
    arguments = given if isinstance(given, Mapping) else {}
    return [
        f"{where}.init_args.{key}: {_named(value)}"
        for key, value in arguments.items()
        if value is not None and (key not in known or not isinstance(value, bool | int | float | str))
    ]


def _is_plain(flag: str, value: Any) -> bool:
    """Return whether a flag's value names nothing but what `WORDS` has: numbers, switches, and those words."""
    if isinstance(value, str):
        return flag in WORDS and re.fullmatch(WORDS[flag], value) is not None
    if isinstance(value, list):
        return flag == "devices" and all(isinstance(item, int) for item in value)
    if isinstance(value, Mapping):
        return flag in _SPANS and all(isinstance(item, int) for item in value.values())
    return value is None or isinstance(value, bool | int | float)


def _is_tag(text: str) -> bool:
    """Return whether a text can only be the tag of published weights: no path, and nothing in the working folder."""
    return re.fullmatch(r"\w[\w.-]{0,99}", text) is not None and not os.path.lexists(text)


def _named(value: Any) -> str:
    classes = [name for _, name in _walk(value, "")]
    return ", ".join(classes) if classes else str(value)[:200]
