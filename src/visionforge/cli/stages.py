"""What commands that read settings share: how these are read, and how results are told."""

import shlex
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from visionforge.errors import SettingsError
from visionforge.runs.paths import outputs_folder
from visionforge.runs.session import LATEST
from visionforge.streams import say, say_text

if TYPE_CHECKING:
    from visionforge.config.loading import RawConfig
    from visionforge.engine.run import EvaluationResult


def read_settings(
    stage: str,
    arguments: list[str],
    further: Callable[[], str] | None = None,
    begun: "Callable[[RawConfig], RawConfig] | None" = None,
) -> "RawConfig | None":
    """Read the settings of a stage; None if only its help or its configuration was asked for, which is printed.

    Args:
        stage: The command, such as `fit`, `probe` or `tune`.
        arguments: What follows it on the command line.
        further: What the help says at its end.
        begun: Puts further settings underneath those that were read.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    from visionforge.cli.help import OF_STAGE
    from visionforge.config.aliases import refuse_other_words
    from visionforge.config.loading import read_arguments

    refuse_other_words(stage, arguments, OF_STAGE[stage])
    raw = read_arguments(arguments)
    if raw.help is not None:
        from visionforge.cli.help import stage_help

        say_text(stage_help(stage, raw.help, further))
        return None
    if begun is not None:
        raw = begun(raw)
    if raw.print_config is not None:
        import yaml

        from visionforge.engine.resolve import resolved_config

        say_text(yaml.safe_dump(resolved_config(raw, stage, raw.print_config or ""), sort_keys=False).rstrip())
        return None
    return raw


def refuse_bare_names(command: str, arguments: list[str], pictures: bool = False) -> None:
    """Answer a run or pictures that stand where no flag names them.

    Args:
        command: The command.
        arguments: What follows it.
        pictures: Whether it takes any.

    Raises:
        SettingsError: With the command line to type.
    """
    names = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    if not names:
        return
    rest, flags = arguments[len(names) :], []
    if names[0] == LATEST or any((folder / names[0] / "run.json").is_file() for folder in (Path(), outputs_folder())):
        flags = ["--run", names.pop(0)]
    elif pictures and not any(argument.startswith(("--run", "--ckpt_path", "--model")) for argument in rest):
        flags = ["--run", LATEST]
    if pictures and names:
        flags += ["--images", *names]
    elif names:
        return  # the command tells of it
    typed = shlex.join(["visionforge", command, *flags, *rest])
    raise SettingsError(f"{command}: {arguments[0]} needs the flag that says what it is; type: {typed}")


def evaluate_stage(stage: str, arguments: list[str], further: Callable[[], str] | None = None) -> int:
    """Run `validate`, `test` or `predict`, and return the exit status; see `read_settings`."""
    from visionforge.engine.team import launched_together

    refuse_bare_names(stage, arguments)
    with launched_together():
        raw = read_settings(stage, arguments, further)
        if raw is not None:
            from visionforge.engine.evaluate import evaluate

            print_result(evaluate(raw, stage), stage, raw.json)
    return 0


def print_result(result: "EvaluationResult", stage: str, as_json: bool = False) -> None:
    """Print what was found; of several processes the first tells."""
    from visionforge.cli.printing import print_json
    from visionforge.cli.result_tables import print_results
    from visionforge.config.loading import is_first_process
    from visionforge.runs.workspace import Workspace

    if not is_first_process():
        return
    if as_json:
        print_json(result.as_dict())
    elif stage == "predict":
        say(f"{result.images:,} predictions: {Workspace(result.path).predictions}")
    elif result.content and result.checkpoint is not None:
        print_results(result.content, Workspace(result.path), result.checkpoint)
