"""Help on settings: those that people change, by topic; or all of them, or those of one section."""

import ast
import inspect
import re
from functools import cache
from typing import Any

from visionforge.config.problems import describe_allowed, flatten, nearest
from visionforge.config.schema import RunSettings
from visionforge.engine.validation import trainer_constructor
from visionforge.errors import SettingsError

WIDTH = 100
TOPICS: dict[str, tuple[str, ...]] = {  # what is shown where nothing more is asked for
    "Data": (
        "data.dataset",
        "data.root",
        "data.resolution",
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
_TRAINING = ("Training", "model.finetuning.freeze_epochs", "model.backbone.pretrained", "model.backbone.weights")
OWN: dict[str, str] = {  # flags that are no settings
    "config": "YAML file with settings, or the name of a shipped one; may be given several times, a later one wins key "
    "by key.",
    "import": "Python module or file whose registered backbones and data sets are then known by name; may be given "
    "several times (`imports` in YAML).",
    "seeds": "Train for several seeds: 3 is the configured one and the next two, 1,7,42 are these.",
    "run": "Run to evaluate: its folder, or its name in the outputs folder; its best checkpoint is taken.",
    "trust": "Run that is continued and may be a stranger's: build the classes that its configuration names.",
    "print_config": "Print the configuration that would run, and stop.",
    "help": "This text; `--help all` shows every setting, `--help model.schedule` those of a section.",
}
OF_STAGE: dict[str, tuple[str, ...]] = {
    "fit": ("config", "import", "resume", "seeds", "ckpt_path", "trust", "print_config", "help"),
    "validate": ("config", "import", "run", "ckpt_path", "print_config", "help"),
    "test": ("config", "import", "run", "ckpt_path", "print_config", "help"),
    "predict": ("config", "import", "run", "ckpt_path", "print_config", "help"),
}
PURPOSE = {
    "fit": "Train a network, test its best checkpoint, and write everything into a run folder.",
    "validate": "Evaluate a run on the validation split.",
    "test": "Evaluate a run on the test split.",
    "predict": "Write the class probabilities of a run for the test split.",
}
PICTURES = (
    "With --images, which takes folders, picture files and archives, `predict` classifies them and takes these flags "
    "alone: {}. `visionforge predict --images PATH --help` tells of them."
)


def stage_help(stage: str, topic: str) -> str:
    """Return the help of `fit`, `validate`, `test` or `predict`.

    Args:
        stage: The command.
        topic: Empty for the settings that people change, `all`, or a section such as `model` or `model.schedule`.

    Raises:
        SettingsError: If there is no such section.
    """
    head = f"usage: visionforge {stage} [--config FILE ...] [--SECTION.KEY VALUE ...]\n\n{PURPOSE[stage]}\n"
    if not topic:
        return head + "\n".join(_flags(stage) + _topics(stage) + _further(stage))
    fields = {path: field for path, field in _settings().items() if not path.startswith("tune")}
    if topic == "all":
        return head + "\n".join([*_flags(stage), "", "Settings", *_lines(fields), *_further(stage)])
    chosen = {path: field for path, field in fields.items() if path == topic or path.startswith(f"{topic}.")}
    if not chosen:
        sections = [path for path in fields if any(other.startswith(f"{path}.") for other in fields)]
        close = nearest(topic, [*sections, *fields]) or sections
        raise SettingsError(f"--help: {topic} is no section or setting; nearest: {', '.join(close)}; or all")
    return head + "\n".join(["", topic, *_lines(chosen)])


def setting_text(path: str, field: Any) -> str:
    """Return what help says of one setting, in two lines or more."""
    default = {"()": "[]", "{}": "{}"}.get(str(field.default), field.default)
    shown = {"None": "null", "True": "true", "False": "false"}.get(str(default), default)
    return f"  --{path}  (default {shown})\n      {field.description} Allowed: {describe_allowed(field)}."


def own_text(name: str) -> str:
    """Return what help says of a flag of a command that belongs to no section of the settings."""
    if name in OWN:
        return OWN[name]
    field = RunSettings.model_fields[name]
    return f"{field.description} Allowed: {describe_allowed(field)}."


def _flags(stage: str) -> list[str]:
    lines = []
    for name in OF_STAGE[stage]:
        text = own_text(name)
        lines.append(f"  {'-h, ' if name == 'help' else ''}--{name}\n      {text}")
    return ["", "Flags", *lines]


def _topics(stage: str) -> list[str]:
    fields = _settings()
    lines: list[str] = []
    for title, paths in TOPICS.items():
        if stage != "fit" and title in _TRAINING:
            continue
        kept = [path for path in paths if stage == "fit" or path not in _TRAINING]
        lines += ["", title, *_lines({path: fields[path] for path in kept})]
    return lines


def _further(stage: str) -> list[str]:
    lines = [
        "",
        "All settings: `--help all`; those of a section: `--help model.schedule`, `--help trainer`. They are written",
        "in the same way in YAML files and in Python.",
    ]
    if stage == "predict":
        from visionforge.cli.predict_images import flag_names

        names = ", ".join(name for name in flag_names() if name != "--images")
        lines += ["", PICTURES.format(names)]
    return lines


def _lines(fields: dict[str, Any]) -> list[str]:
    return [field if isinstance(field, str) else setting_text(path, field) for path, field in fields.items()]


@cache
def _settings() -> dict[str, Any]:
    """Return dotted path → its field, or the text for a flag that only Lightning describes, in the order of a file."""
    fields = {
        path: field for path, field in flatten(RunSettings).items() if not hasattr(field.annotation, "model_fields")
    }
    found: dict[str, Any] = {}
    for name, text in _trainer_flags().items():
        path = f"trainer.{name}"
        found[path] = fields.pop(path, None) or f"  --{path}\n      {text}"
    return {**fields, **found}


def _trainer_flags() -> dict[str, str]:
    """Return the Trainer's flags with the first sentence of their description, read from Lightning's source."""
    constructor = trainer_constructor()
    text = inspect.cleandoc(ast.get_docstring(constructor) or "")
    described = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.*\S)*)", text, re.M))
    sentences = {name: " ".join(body.split()).replace("``", "") for name, body in described.items()}
    return {
        argument.arg: re.split(r"(?<=[.])\s", sentences.get(argument.arg, "A flag of the Trainer."))[0]
        for argument in constructor.args.kwonlyargs
    }
