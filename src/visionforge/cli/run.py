"""`fit`, `validate`, `test` and `predict`: check the whole configuration, then hand over to LightningCLI."""

import os
import tempfile
from pathlib import Path

import yaml

from visionforge.cli.precheck import check_arguments
from visionforge.cli.target import Target, find_target
from visionforge.config.loading import RawConfig, read_arguments
from visionforge.errors import RunError
from visionforge.runs.logfile import RunLog

CUBLAS_WORKSPACE = ":4096:8"  # fixed workspaces, without which cuBLAS does not repeat; read once, when CUDA starts


def run_stage(stage: str, arguments: list[str]) -> int:
    """Run one Trainer stage with the given command-line arguments.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    raw = read_arguments(arguments)
    target = None if stage == "fit" or raw.wants_help else _resolve_target(stage, raw)
    if not raw.wants_help:
        settings = check_arguments(raw, stage)
        if settings.trainer.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    if stage == "fit":
        _require_file(raw)
    return _hand_over(stage, arguments, target)


def _resolve_target(stage: str, raw: RawConfig) -> Target:
    """Find the trained network, and put its configuration underneath what the user gave."""
    run = raw.values.pop("run", None)
    target = find_target(stage, run, raw.values.pop("ckpt_path", None))
    given, sources = raw.values, raw.sources
    raw.values, raw.sources = {}, {}
    raw.merge(
        target.config, f"in {target.checkpoint.parent.parent / 'config.yaml'}" if target.run else "in the checkpoint"
    )
    raw.merge(given, "")
    raw.sources.update(sources)
    return target


def _require_file(raw: RawConfig) -> None:
    checkpoint = raw.values.get("ckpt_path")
    if checkpoint is not None and not Path(str(checkpoint)).is_file():
        raise RunError(f"ckpt_path: {checkpoint} does not exist; to continue a fit, name a checkpoint file")


def _hand_over(stage: str, arguments: list[str], target: Target | None) -> int:
    # seconds of imports; Lightning sets up its loggers here, so they come before our own
    from visionforge.cli.app import VisionForgeCLI, is_first_rank

    run_log = RunLog(quiet=not is_first_rank())
    run_log.start()
    try:
        if target is None:
            VisionForgeCLI.launch(stage, arguments, run_log)
            return 0
        with tempfile.TemporaryDirectory(prefix="visionforge-") as folder:
            base = Path(folder) / "config.yaml"  # the run's settings first; the user's files and flags then win
            base.write_text(yaml.safe_dump(target.config), encoding="utf-8")
            rest = _without(arguments, ("--run", "--ckpt_path"))
            VisionForgeCLI.launch(stage, ["--config", str(base), *rest], run_log, target)
        return 0
    finally:
        run_log.stop()


def _without(arguments: list[str], flags: tuple[str, ...]) -> list[str]:
    """Return the arguments without some flags and their values."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in flags:
            skip = True
        elif argument.partition("=")[0] not in flags:
            kept.append(argument)
    return kept
