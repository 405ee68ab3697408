"""What settings mean: those that people change, by topic; or all of them, or those of one section."""

import ast
import inspect
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from visionforge.config.problems import describe_allowed, item_fields, leaves, nearest
from visionforge.config.schema import RunSettings
from visionforge.engine.validation import trainer_constructor
from visionforge.errors import SettingsError

TOPICS: dict[str, tuple[str, ...]] = {  # what is shown where nothing more is asked for
    "Data": (
        "data.dataset",
        "data.root",
        "data.resolution",
        "data.resize.size",
        "data.batch_size",
        "data.balanced_sampling",
        "data.max_samples",
        "data.augmentation.preset",
    ),
    "Network": (
        "model.backbone.name",
        "model.backbone.pretrained",
        "model.backbone.weights",
        "model.backbone.dropout",
        "model.finetuning.freeze_epochs",
        "model.tta",
    ),
    "Training": (
        "trainer.max_epochs",
        "model.optimizer.name",
        "model.optimizer.learning_rate",
        "model.optimizer.weight_decay",
        "model.schedule.name",
        "model.schedule.warmup_epochs",
        "model.loss.name",
        "model.loss.label_smoothing",
        "model.mixup.alpha",
        "model.averaging.name",
        "trainer.gradient_clip_val",
        "seed_everything",
    ),
    "Machine": (
        "trainer.accelerator",
        "trainer.devices",
        "trainer.precision",
        "trainer.deterministic",
        "data.num_workers",
    ),
    "Run and report": (
        "trainer.default_root_dir",
        "trainer.callbacks",
        "trainer.logger",
        "evaluation.resamples",
        "log_level",
    ),
}
_WEIGHTS = ("model.backbone.pretrained", "model.backbone.weights")
OF_TRAINING = ("Training", "model.finetuning.freeze_epochs", *_WEIGHTS)


_OUR_WORDS = {  # of flags of the Trainer that mean something else here, or more
    "default_root_dir": "Folder of the runs; default $VISIONFORGE_OUTPUTS, or the project's `outputs`.",
    "callbacks": "Callback of Lightning, or a list of them: class_path and init_args, as in YAML.",
    "logger": "Logger of Lightning, or a list of them, such as TensorBoardLogger; none is the default.",
}
OF_ONE_COMMAND = ("probe", "tune", "benchmark")  # sections that other commands pass over


def settings_help(topic: str = "", training: bool = True, own: str = "", frozen: bool = False) -> str:
    """Return what settings mean, as the help of a command shows them.

    Args:
        topic: Empty for the settings that people change, `all`, or a section such as `model` or `model.schedule`.
        training: Whether those that people change of a training are among them.
        own: The section of `OF_ONE_COMMAND` that the command reads, if it is one of these.
        frozen: Whether a pretrained backbone may be named, which is not trained.

    Raises:
        SettingsError: If there is no such section.
    """
    others = {name for name in OF_ONE_COMMAND if name != own}
    fields = {path: field for path, field in _settings().items() if path.partition(".")[0] not in others}
    if not topic:
        return "\n".join(_topics(fields, training, _WEIGHTS if frozen else ()))
    if topic == "all":
        return "\n".join(["", "Settings", *_lines(fields)])
    inside = (f"{topic}.", f"{topic}[].")
    chosen = {path: field for path, field in fields.items() if path == topic or path.startswith(inside)}
    if not chosen:
        raise SettingsError(f"topic: {topic} is no section or setting; {_instead(topic, fields)}; or all")
    return "\n".join(["", topic, *_lines(chosen)])


def _instead(topic: str, fields: Iterable[str]) -> str:
    """Return the sections and settings whose names are near, or all large sections."""
    paths = [path.split(".") for path in fields]
    sections = dict.fromkeys(".".join(parts[:length]) for parts in paths for length in range(1, len(parts)))
    if close := nearest(topic, [*sections, *fields]):
        return f"nearest: {', '.join(close)}"
    return f"sections: {', '.join(name for name in sections if '.' not in name)}"


def setting_text(path: str, field: Any) -> str:
    """Return what one setting means, in two lines or more."""
    default = {"()": "[]", "{}": "{}"}.get(str(field.default), field.default)
    shown = {"None": "null", "True": "true", "False": "false"}.get(str(default), default)
    told = "needed" if shown == "" else f"default {shown}"
    return f"  --{path}  ({told})\n      {field.description} Allowed: {describe_allowed(field)}."


def _item_text(path: str, field: Any) -> str:
    """Return what a setting of the items of a list means, for which there is no flag."""
    return setting_text(path, field).replace("  --", "  ", 1)


def _topics(fields: dict[str, Any], training: bool, also: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    for title, paths in TOPICS.items():
        if training or title not in OF_TRAINING:
            kept = [path for path in paths if training or path in also or path not in OF_TRAINING]
            lines += ["", title, *_lines({path: fields[path] for path in kept})]
    return lines


def _lines(fields: dict[str, Any]) -> list[str]:
    return [field if isinstance(field, str) else setting_text(path, field) for path, field in fields.items()]


@cache
def _settings() -> dict[str, Any]:
    """Return dotted path → its field, or the text for a flag that only Lightning describes, in the order of a file."""
    fields: dict[str, Any] = {}
    for path, field in leaves(RunSettings).items():
        fields[path] = field
        fields |= {name: _item_text(name, each) for name, each in item_fields(path, field).items()}
    found: dict[str, Any] = {}
    for name, text in trainer_flag_texts().items():
        path = f"trainer.{name}"
        found[path] = fields.pop(path, None) or f"  --{path}\n      {text}"
    return {**fields, **found}


@cache
def trainer_flag_texts() -> dict[str, str]:
    """Return the Trainer's flags with the first sentence of their description, read from Lightning's source."""
    constructor = trainer_constructor()
    text = inspect.cleandoc(ast.get_docstring(constructor) or "")
    described = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.*\S)*)", text, re.M))
    sentences = {name: " ".join(body.split()).replace("``", "") for name, body in described.items()}
    found = {
        argument.arg: re.split(r"(?<=[.])\s", sentences.get(argument.arg, "A flag of the Trainer."))[0]
        for argument in constructor.args.kwonlyargs
    }
    return {**found, **_OUR_WORDS}
