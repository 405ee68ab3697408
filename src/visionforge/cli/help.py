"""The help of the commands that read settings: their flags, and the settings."""

import shutil
import textwrap
from collections.abc import Callable

from visionforge.cli.arguments import flags_named
from visionforge.config.problems import describe_allowed
from visionforge.config.schema import RunSettings
from visionforge.engine.settings_help import OF_ONE_COMMAND, settings_help

WIDEST = 100  # columns of a line of help
OWN: dict[str, str] = {  # flags that are no settings
    "config": "YAML file with settings, or the name of a shipped one; may be given several times, a later one wins key "
    "by key.",
    "import": "Python module or file whose registered backbones, data sets and metrics are then known by name; may be "
    "given several times (`imports` in YAML).",
    "minutes": "With a source: how long the training may take on a CPU; default 10.",
    "name": "With a source of pictures: catalog name of the data set that is made of it; default by the source.",
    "seeds": "Train for several seeds: 3 is the configured one and the next two, 1,7,42 are these.",
    "folds": "Cross-validation: a network for each of so many folds of train and val; a fit joins them, a search takes "
    "their mean.",
    "workers": "Processes that share the folds of --folds, or the cells of a benchmark; default 1.",
    "profile": "Measure where the time of a step goes, trace a few steps, and say what to change.",
    "distill": "With --folds: train one network more, which learns from all of them (`model.distillation`).",
    "run": "Run to evaluate, or whose network is probed: its folder, or its name in the outputs folder; its best "
    "checkpoint is taken.",
    "split": "Images of the data set: train, val, test or all, the default; with --images, the part of .npz archives.",
    "images": "Pictures instead of a data set: folders, picture files, .npz archives; of volumes .npy, .nii and "
    ".nii.gz files.",
    "output": "File to write: .npz, .parquet, .csv or .jsonl; default embeddings.npz in the run's evaluations, or in "
    "the working folder without a run.",
    "overwrite": "Replace a file that exists.",
    "no_cache": "Compute the features even if they are kept from an earlier call, and keep none.",
    "report": "Search nothing; write the reports of a study, given by its folder or its name, anew. It takes "
    "--tune.storage where the study is not kept in its folder.",
    "suite": "Matrix that is shipped: quick, medmnist2d or medmnist3d; short for --benchmark.suite.",
    "list": "List the cells with their states, and stop.",
    "leaderboard_only": "Train nothing; write the leaderboard anew from what is there.",
    "retry_failed": "Try cells again that have failed.",
    "trust": "Run that is continued and may be a stranger's: build the classes that its configuration names.",
    "json": "Print the result as JSON and nothing else on standard output; log lines stay on standard error.",
    "print_config": "Print the configuration that would run, and stop.",
    "help": "This text; `--help all` shows every setting, `--help model.schedule` those of a section.",
}
OF_STAGE: dict[str, tuple[str, ...]] = {
    "fit": (
        *(
            "config",
            "import",
            "minutes",
            "name",
            "resume",
            "seeds",
            "folds",
            "workers",
            "distill",
            "profile",
            "ckpt_path",
            "trust",
        ),
        *("json", "print_config", "help"),
    ),
    "validate": ("config", "import", "run", "ckpt_path", "json", "print_config", "help"),
    "test": ("config", "import", "run", "ckpt_path", "json", "print_config", "help"),
    "predict": ("config", "import", "run", "ckpt_path", "json", "print_config", "help"),
    "probe": ("config", "import", "run", "seeds", "folds", "json", "print_config", "help"),
    "embed": (
        *("config", "import", "run", "ckpt_path", "split", "images", "output", "overwrite", "no_cache"),
        *("json", "print_config", "help"),
    ),
    "tune": ("config", "import", "folds", "report", "json", "print_config", "help"),
    "benchmark": (
        *(
            "config",
            "import",
            "suite",
            "workers",
            "list",
            "leaderboard_only",
            "retry_failed",
            "json",
            "print_config",
            "help",
        ),
    ),
}
PURPOSE = {
    "fit": "Train a network, test its best checkpoint, and write everything into a run folder. `fit SOURCE`, pictures, "
    "a table or a data set of the catalog, begins with what `visionforge init SOURCE` would write.",
    "validate": "Evaluate a run on the validation split.",
    "test": "Evaluate a run on the test split.",
    "predict": "Write the class probabilities of a run for the test split.",
    "probe": "Fit a classifier to the features of a network that stays as it is, and write a run of both.",
    "embed": "Write the features of images: what the last layer of a run, or of a pretrained backbone, is given.",
    "tune": "Search hyperparameters. Every trial is an ordinary fit; the same command again resumes the study.",
    "benchmark": "Train and test a matrix of data sets, resolutions, backbones, recipes and seeds, and write their "
    "leaderboard. Every cell is an ordinary fit; the same command again goes on.",
}
VALUES = {  # what follows a flag; nothing follows the others
    "config": "FILE",
    "import": "MODULE",
    "minutes": "MINUTES",
    "name": "NAME",
    "resume": "RUN|auto|never",
    "seeds": "NUMBER|A,B,C",
    "folds": "NUMBER",
    "workers": "NUMBER",
    "ckpt_path": "best|last|FILE",
    "trust": "RUN",
    "run": "RUN",
    "split": "NAME",
    "images": "PATH ...",
    "output": "FILE",
    "report": "STUDY",
    "suite": "NAME",
    "help": "[SECTION]",
}
END = (
    "All settings: `--help all`; those of a section: `--help model.schedule`, `--help trainer`. They are written "
    "in the same way in YAML files and in Python."
)


def stage_help(stage: str, topic: str, further: Callable[[], str] | None = None) -> str:
    """Return the help of a command that reads settings, such as `fit`, `probe` or `tune`.

    Args:
        stage: The command.
        topic: Empty for the settings that people change, `all`, or a section such as `model` or `model.schedule`.
        further: What is said at the end of a whole page.

    Raises:
        SettingsError: If there is no such section.
    """
    source = " [SOURCE]" if stage == "fit" else ""
    head = f"usage: visionforge {stage}{source} [--config FILE ...] [--SECTION.KEY VALUE ...]\n\n{PURPOSE[stage]}"
    with flags_named({"topic": "--help"}):
        own = stage if stage in OF_ONE_COMMAND else ""
        settings = settings_help(topic or own, training=stage == "fit", own=own, frozen=stage == "embed")
    if topic not in ("", "all"):
        return _broken(f"{head}\n{settings}")
    more = ["", further()] if further else []
    return _broken("\n".join([head, "", *_examples(stage), "Flags", *_flags(stage), settings, "", END, *more]))


def _broken(text: str) -> str:
    """Return a text whose lines fit the terminal; names and what is to be typed are not broken."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        typed = line.startswith(f"{indent}visionforge ")
        broken = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines += [line] if typed else broken or [""]
    return "\n".join(lines)


def _examples(stage: str) -> list[str]:
    from visionforge.cli.commands import commands

    examples = [f"  visionforge {line}" for line in commands()[stage].examples]
    return ["Examples", *examples, ""] if examples else []


def own_text(name: str) -> str:
    """Return what help says of a flag of a command that belongs to no section of the settings."""
    if name in OWN:
        return OWN[name]
    field = RunSettings.model_fields[name]
    return f"{field.description} Allowed: {describe_allowed(field)}."


def _flags(stage: str) -> list[str]:
    lines = []
    for name in OF_STAGE[stage]:
        value = f" {VALUES[name]}" if name in VALUES else ""
        lines.append(f"  {'-h, ' if name == 'help' else ''}--{name}{value}\n      {own_text(name)}")
    return lines
