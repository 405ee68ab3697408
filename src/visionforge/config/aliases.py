"""Words of other tools and of the earlier program, answered with the command that means the same here."""

import shlex
from collections.abc import Mapping, Sequence

from visionforge.errors import SettingsError

COMMANDS: Mapping[str, str] = {
    "train": "fit",
    "eval": "test",
    "evaluate": "test",
    "val": "validate",
    "infer": "predict",
    "inference": "predict",
    "classify": "predict",
    "optimize": "tune",
    "optimise": "tune",
    "search": "tune",
    "sweep": "tune",
    "hpo": "tune",
    "import": "datasets import",
    "download": "datasets download",
    "resume": "fit --resume",
    "continue": "fit --resume",
    "compare": "runs compare",
    "list": "runs list",
    "clean": "runs clean",
    "check": "doctor",
    "help": "--help",
    "version": "--version",
}
# Flags, without their dashes and with underscores → the setting
SETTINGS: Mapping[str, str] = {
    "epochs": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "lr": "model.optimizer.learning_rate",
    "learning_rate": "model.optimizer.learning_rate",
    "lr0": "model.optimizer.learning_rate",
    "min_lr": "model.schedule.min_lr",
    "weight_decay": "model.optimizer.weight_decay",
    "wd": "model.optimizer.weight_decay",
    "momentum": "model.optimizer.momentum",
    "optimizer": "model.optimizer.name",
    "opt": "model.optimizer.name",
    "scheduler": "model.schedule.name",
    "sched": "model.schedule.name",
    "cosine_fraction": "model.schedule.cosine_fraction",
    "scheduler_patience": "model.schedule.scheduler_patience",
    "warmup_epochs": "model.schedule.warmup_epochs",
    "loss": "model.loss.name",
    "label_smoothing": "model.loss.label_smoothing",
    "smoothing": "model.loss.label_smoothing",
    "mixup": "model.mixup.alpha",
    "mixup_alpha": "model.mixup.alpha",
    "mixup_epochs": "model.mixup.mixup_epochs",
    "cutmix": "model.mixup.cutmix_alpha",
    "model_name": "model.backbone.name",
    "backbone": "model.backbone.name",
    "arch": "model.backbone.name",
    "architecture": "model.backbone.name",
    "network": "model.backbone.name",
    "pretrained": "model.backbone.pretrained",
    "weights": "model.backbone.weights",
    "dropout": "model.backbone.dropout",
    "drop": "model.backbone.dropout",
    "tta": "model.tta",
    "batch": "data.batch_size",
    "batch_size": "data.batch_size",
    "bs": "data.batch_size",
    "dataset": "data.dataset",
    "data_root": "data.root",
    "data_dir": "data.root",
    "root": "data.root",
    "resolution": "data.resolution",
    "size": "data.resolution",
    "img_size": "data.resolution",
    "image_size": "data.resolution",
    "imgsz": "data.resolution",
    "workers": "data.num_workers",
    "num_workers": "data.num_workers",
    "max_samples": "data.max_samples",
    "force_rgb": "data.force_rgb",
    "use_weighted_sampler": "data.balanced_sampling",
    "hflip": "data.augmentation.hflip",
    "rotation_angle": "data.augmentation.rotation_angle",
    "jitter_val": "data.augmentation.jitter_val",
    "min_scale": "data.augmentation.min_scale",
    "aug": "data.augmentation.preset",
    "augmentation": "data.augmentation.preset",
    "device": "trainer.accelerator",
    "accelerator": "trainer.accelerator",
    "devices": "trainer.devices",
    "gpus": "trainer.devices",
    "precision": "trainer.precision",
    "deterministic": "trainer.deterministic",
    "output": "trainer.default_root_dir",
    "output_dir": "trainer.default_root_dir",
    "out_dir": "trainer.default_root_dir",
    "project": "trainer.default_root_dir",
    "seed": "seed_everything",
    "n_trials": "tune.n_trials",
    "trials": "tune.n_trials",
    "study_name": "tune.study",
    "search_space_preset": "tune.preset",
}
# Flags that say it all without a value → the setting and its value
_SWITCHES: Mapping[str, tuple[str, str]] = {
    "no_tta": ("model.tta", "off"),
    "reproducible": ("trainer.deterministic", "true"),
    "amp": ("trainer.precision", "auto"),
}
_OF_COMMAND: Mapping[str, Mapping[str, str]] = {
    "tune": {"epochs": "tune.epochs"},
}
_CONFIGURED = ("fit", "test", "validate", "predict", "tune")  # commands that take settings
_FILES = (".yaml", ".yml")
_WHOLE = ("model", "data")  # which take the name of a configuration file


def command_meant(name: str, arguments: Sequence[str]) -> str | None:
    """Return the command line that says here what another tool's does; None if the word is none of theirs."""
    if name not in COMMANDS:
        return None
    meant = COMMANDS[name]
    return _line(meant, _translated(meant, arguments)[0] if meant in _CONFIGURED else arguments)


def refuse_other_words(command: str, arguments: Sequence[str], own: Sequence[str] = ()) -> None:
    """Answer flags of other tools.

    Args:
        command: The command, which takes settings.
        arguments: What follows it.
        own: Flags of the command's own that are no settings, without their dashes.

    Raises:
        SettingsError: With the command line to type, if there is any such flag.
    """
    translated, words = _translated(command, arguments, own)
    if words:
        raise SettingsError(f"{', '.join(words)}: settings have longer names here; type: {_line(command, translated)}")


def _line(command: str, arguments: Sequence[str]) -> str:
    return " ".join(["visionforge", command, *map(shlex.quote, arguments)])


def _meant(command: str, flag: str, value: str, own: Sequence[str]) -> tuple[str, str | None] | None:
    """Return the setting of a flag, and its value where that is part of the flag; None if it is none of theirs."""
    name = flag.removeprefix("--").replace("-", "_")
    if not flag.startswith("--") or name in own:
        return None
    if name in _SWITCHES:
        return _SWITCHES[name]
    if name in _WHOLE:
        whole = "model.backbone.name" if name == "model" else "data.dataset"
        return None if not value or value.startswith("{") or value.endswith(_FILES) else (whole, None)
    setting = {**SETTINGS, **_OF_COMMAND.get(command, {})}.get(name)
    return None if setting is None else (setting, None)


def _translated(command: str, arguments: Sequence[str], own: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Return arguments with the names that settings have here, and the flags that had other names."""
    found: list[str] = []
    words: list[str] = []
    switched = False  # by the argument before, which may be followed by true or false
    for argument, after in zip(arguments, [*arguments, ""][1:], strict=True):
        follows, switched = switched, False
        if follows and argument.lower() in ("true", "false"):
            continue
        flag, equals, value = argument.partition("=")
        meant = _meant(command, flag, value or after, own)
        if meant is None:
            found.append(argument)
            continue
        words.append(flag)
        setting, switch = meant
        switched = switch is not None and not equals
        found.append(f"--{setting}{equals}{value}" if switch is None else f"--{setting}={switch}")
    return found, words
