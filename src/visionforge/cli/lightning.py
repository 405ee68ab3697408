"""`fit`, `validate`, `test` and `predict`."""

from collections.abc import Sequence

import yaml

from visionforge.cli.arguments import say, say_text
from visionforge.cli.compare import print_comparison
from visionforge.cli.help import stage_help
from visionforge.cli.report import print_results
from visionforge.config.environment import ordered_arguments
from visionforge.config.loading import RawConfig, normalise, read_arguments
from visionforge.engine.distributed import is_first_process
from visionforge.engine.evaluate import evaluate
from visionforge.engine.fit import fit, request_of
from visionforge.engine.resolve import resolved_config
from visionforge.engine.run import EvaluationResult, Run
from visionforge.engine.seeds import fit_seeds
from visionforge.evaluation.comparison import comparison
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import Workspace


def run_stage(stage: str, arguments: list[str]) -> int:
    """Run one Trainer stage with the given command-line arguments.

    Args:
        stage: `fit`, `validate`, `test` or `predict`.
        arguments: What follows it on the command line.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
        Interrupted: If a signal ended a fit.
    """
    raw = read_arguments(ordered_arguments(normalise(arguments)))
    if raw.help is not None:
        say_text(stage_help(stage, raw.help))
    elif raw.print_config is not None:
        _print_config(stage, raw)
    elif stage == "fit":
        _fit(raw)
    else:
        _tell(evaluate(raw, stage), stage)
    return 0


def _fit(raw: RawConfig) -> None:
    seeds = raw.values.pop("seeds", None)
    with Interruption() as interruption:
        if seeds is None:
            _tell(fit(request_of(raw), interruption).result, "fit")
        else:
            _tell_seeds(fit_seeds(raw, str(seeds), interruption, _tell_seed, lambda run: _tell(run.result, "fit")))


def _tell_seed(place: int, count: int, seed: int, done: Run | None) -> None:
    known = "" if done is None else f": complete already, {shown(done.path)}"
    say(f"seed {seed} ({place} of {count}){known}")


def _tell_seeds(runs: Sequence[Run]) -> None:
    """Print what the runs have in common; seeds are repetitions, not rival models."""
    say()
    print_comparison(comparison([run.stored for run in runs], 0, runs[0].settings.evaluation.confidence))
    say()
    say(f"again: visionforge runs compare {' '.join(str(shown(run.path)) for run in runs)}")


def _tell(result: EvaluationResult, stage: str) -> None:
    """Print what was found; of several processes the first tells."""
    if not is_first_process():
        return
    if stage == "predict":
        say(f"{result.images:,} predictions: {Workspace(result.path).predictions}")
    elif result.content and result.checkpoint is not None:
        print_results(result.content, Workspace(result.path), result.checkpoint)


def _print_config(stage: str, raw: RawConfig) -> None:
    """Print the configuration that would run, complete and resolved."""
    say_text(yaml.safe_dump(resolved_config(raw, stage, raw.print_config or ""), sort_keys=False).rstrip())
