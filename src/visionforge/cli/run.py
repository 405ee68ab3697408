"""`fit`, `validate`, `test` and `predict`: check the whole configuration, then hand over to LightningCLI."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from visionforge.config.environment import ordered_arguments, warn_of_environment
from visionforge.config.loading import RawConfig, normalise, read_arguments
from visionforge.config.schema import RunSettings
from visionforge.config.seeding import STRICT_VARIABLE
from visionforge.engine.resume import (
    CHECKPOINT,
    Plan,
    inherited_plan,
    refuse_search_by_ranks,
    require_same_settings,
    run_to_resume,
)
from visionforge.engine.validation import check_arguments
from visionforge.errors import RunError, SettingsError
from visionforge.inference.loading import Target, find_target
from visionforge.inference.trust import FLAG, training_config
from visionforge.runs.active import ActiveRun
from visionforge.runs.anchors import resolve
from visionforge.runs.logfile import RunLog
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import Workspace


def run_stage(stage: str, arguments: list[str], parent: dict[str, Any] | None = None) -> int:
    """Run one Trainer stage with the given command-line arguments.

    Args:
        stage: `fit`, `validate`, `test` or `predict`.
        arguments: What follows it on the command line.
        parent: The run or study that a new run comes from.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
        Interrupted: If a signal ended a fit.
    """
    arguments = ordered_arguments(normalise(arguments))
    if stage == "fit" and any(argument.partition("=")[0] == "--seeds" for argument in arguments):
        from visionforge.cli.seeds import run_seeds

        return run_seeds(arguments)
    raw = read_arguments(arguments)
    if raw.wants_help:
        return _hand_over(stage, arguments, "info", None, Plan())
    if stage == "fit":
        with Interruption() as interruption:
            return fit(arguments, Plan(interruption=interruption, parent=parent))
    target = _resolve_target(stage, raw)
    settings = _checked(raw, stage)
    with tempfile.TemporaryDirectory(prefix="visionforge-") as folder:
        base = _base_config(Path(folder), target.config)  # the run's settings first; the user's then win
        rest = without_tune(without(arguments, ("--run", "--ckpt_path")))
        return _hand_over(stage, [*base, *rest], settings.log_level, target, Plan())


def _checked(raw: RawConfig, stage: str) -> RunSettings:
    settings = check_arguments(raw, stage)
    if settings.trainer.deterministic:
        os.environ.setdefault(*STRICT_VARIABLE)
    return settings


def fit(arguments: list[str], plan: Plan) -> int:
    """Fit with the given arguments, which are in their normal form; see `run_stage`."""
    raw = read_arguments(arguments)
    choice, trust = raw.values.get("resume"), raw.values.pop("trust", None)
    rest = without_tune(without(arguments, ("--resume", FLAG)))
    named = None if choice in (None, "auto", "never") else run_to_resume(str(choice), RunSettings())
    if trust is not None and named is None:
        raise SettingsError(f"{FLAG}: is for a run that is continued; name it with --resume, too")
    stored = {} if named is None else training_config(named, None if trust is None else str(trust), "--resume")
    if named is not None:
        _underlay(raw, stored, f"in {named.config}")
    settings = _checked(raw, "fit")
    first = _is_first_process()
    if not first:
        refuse_search_by_ranks(settings.resume)
        plan = inherited_plan(plan)
    run = named or (run_to_resume(settings.resume, settings) if first else None)
    if run is None:
        plan.past_interrupted |= settings.resume == "never"
        _require_file(raw)
        return _hand_over("fit", rest, settings.log_level, None, plan)
    if named is not None:  # a run that was found has the settings that were given
        require_same_settings(stored, settings, run)
    plan.made = run
    with tempfile.TemporaryDirectory(prefix="visionforge-") as folder, _reopened(run, plan, first):
        base = _base_config(Path(folder), stored) if stored else []
        return _hand_over("fit", [*base, *rest], settings.log_level, None, plan)


@contextmanager
def _reopened(run: Workspace, plan: Plan, first: bool) -> Iterator[None]:
    """Lock a run and choose what it continues from; the other ranks, started by the first, are told what it chose."""
    if not first:
        if plan.checkpoint is None:
            plan.checkpoint = _choose(run)
        yield
        return
    plan.active = ActiveRun.reopen(run)
    try:
        plan.checkpoint = _choose(run)
        os.environ[CHECKPOINT] = str(plan.checkpoint or "")
        yield
    except BaseException as error:
        if plan.active.manifest.state == "running":  # nobody has written how it ended: it did not come that far
            plan.active.finish("interrupted", str(error) or type(error).__name__)
        raise
    finally:
        os.environ.pop(CHECKPOINT, None)


def _choose(run: Workspace) -> Path | None:
    from visionforge.training.checkpoints import checkpoint_to_resume

    return checkpoint_to_resume(run.checkpoints)


def _is_first_process() -> bool:
    """Return whether this process makes the files; the launchers number theirs in these variables."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 0) == 0


def _underlay(raw: RawConfig, config: dict[str, Any], source: str) -> None:
    """Put a stored configuration underneath what the user gave."""
    given, sources = raw.values, raw.sources
    raw.values, raw.sources = {}, {}
    raw.merge(config, source)
    raw.merge(given, "")
    raw.sources.update(sources)


def _resolve_target(stage: str, raw: RawConfig) -> Target:
    """Find the trained network, and put its configuration underneath what the user gave."""
    run = raw.values.pop("run", None)
    target = find_target(stage, run, raw.values.pop("ckpt_path", None))
    source = f"in {target.checkpoint.parent.parent / 'config.yaml'}" if target.run else "in the checkpoint"
    _underlay(raw, target.config, source)
    return target


def _require_file(raw: RawConfig) -> None:
    checkpoint = raw.values.get("ckpt_path")
    if checkpoint is not None and not resolve(str(checkpoint)).is_file():
        raise RunError(
            f"ckpt_path: {checkpoint} does not exist; name a checkpoint file to begin from, or continue an "
            "interrupted run with --resume RUN"
        )


def _base_config(folder: Path, config: dict[str, Any]) -> list[str]:
    base = folder / "config.yaml"
    base.write_text(yaml.safe_dump(config), encoding="utf-8")
    return ["--config", str(base)]


def _hand_over(stage: str, arguments: list[str], level: str, target: Target | None, plan: Plan) -> int:
    # seconds of imports; Lightning sets up its loggers here, so they come before our own
    from visionforge.cli.app import VisionForgeCLI, current_rank

    if plan.trial is not None and level != "debug":
        level = "error"  # the study tells of its trials; run.log has all lines
    run_log = RunLog(level, current_rank())
    run_log.start()
    try:
        warn_of_environment()
        VisionForgeCLI.launch(stage, arguments, run_log, target, plan)
        return 0
    finally:
        run_log.stop()


def without_tune(arguments: list[str]) -> list[str]:
    """Return the arguments without the settings of the search, which every file may hold."""
    names = {argument.partition("=")[0] for argument in arguments if argument.startswith("--tune")}
    return without(arguments, tuple(names))


def without(arguments: list[str], flags: tuple[str, ...]) -> list[str]:
    """Return the arguments without some flags and their values.

    Args:
        arguments: In their normal form.
        flags: Names with their dashes.
    """
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in flags:
            skip = True
        elif argument.partition("=")[0] not in flags:
            kept.append(argument)
    return kept
