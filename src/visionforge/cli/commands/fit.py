"""`visionforge fit`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from visionforge.cli.command import Command
from visionforge.cli.help import OF_STAGE
from visionforge.cli.printing import print_json
from visionforge.cli.stages import print_result, read_settings
from visionforge.config.aliases import refuse_other_words
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.streams import say, say_lines

if TYPE_CHECKING:
    from visionforge.config.loading import RawConfig
    from visionforge.engine.folds import FoldRuns
    from visionforge.engine.run import Run


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    from visionforge.engine.team import launched_together

    with launched_together():
        refuse_other_words("fit", arguments, OF_STAGE["fit"])  # with the source, which is part of what is to be typed
        named = bool(arguments) and not arguments[0].startswith("-")
        source, rest = (arguments[0], arguments[1:]) if named else (None, arguments)
        raw = read_settings("fit", rest, begun=lambda given: _begun(given, source))
        if raw is not None:
            _fit(raw)
    return 0


def _begun(raw: "RawConfig", source: str | None) -> "RawConfig":
    """Return settings with those of a starter underneath, if there is a source; its data set is told of."""
    from visionforge.config.loading import is_first_process
    from visionforge.engine.beginning import begin_with

    raw, found = begin_with(raw, source)
    if found is not None and raw.print_config is None and is_first_process():
        say_lines([*found.lines(), found.choices(raw.values)])
    return raw


def _fit(raw: "RawConfig") -> None:
    from visionforge.engine.fit import fit, request_of, require_subject
    from visionforge.engine.folds import fit_folds
    from visionforge.engine.seeds import fit_seeds

    require_subject(raw)
    seeds, folds, workers, distill = (raw.values.pop(name, None) for name in ("seeds", "folds", "workers", "distill"))
    with Interruption() as interruption:
        if any(given is not None for given in (folds, workers, distill)):
            found = fit_folds(raw, folds, interruption, print_fold, print_run, workers, seeds, distill)
            print_folds(found, raw.json)
        elif seeds is None:
            done = fit(request_of(raw), interruption)
            print_fit(done, raw.json)
        else:
            print_seeds(fit_seeds(raw, str(seeds), interruption, print_seed, print_run), raw.json)


def print_fit(run: "Run", as_json: bool) -> None:
    """Print the results of a run, and where the time of its training went, if that was measured."""
    from visionforge.cli.profile_table import print_step_profile
    from visionforge.config.loading import is_first_process

    if not is_first_process():
        return
    if as_json:
        print_json(run.as_dict())
        return
    print_run(run)
    if (found := run.profile) is not None:
        print_step_profile(found, run.workspace)


def print_seed(place: int, count: int, seed: int, done: "Run | None") -> None:
    """Print which seed is next, or complete already."""
    known = "" if done is None else f": complete already, {shown(done.path)}"
    say(f"seed {seed} ({place} of {count}){known}")


def print_fold(fold: int, count: int, done: "Run | None") -> None:
    """Print which fold is next, or complete already."""
    known = "" if done is None else f": complete already, {shown(done.path)}"
    say(f"fold {fold} (0 to {count - 1}){known}")


def print_folds(found: "FoldRuns", as_json: bool) -> None:
    """Print what the networks say of their own folds, and the test of all of them together."""
    from visionforge.cli.result_tables import print_folds
    from visionforge.engine.distillation import student_text

    if as_json:
        print_json(found.as_dict())
        return
    runs = " ".join(str(shown(run.path)) for run in found.runs)
    if found.ensemble is None:
        say(f"networks that find boxes are not joined; compare them: visionforge runs compare {runs}")
        return
    print_result(found.ensemble.result, "fit")
    print_folds(found.ensemble.result.content, found.ensemble.path)
    if found.student is not None:
        say(f"{'student':>12}  {student_text(found.student, found.ensemble)}")


def print_run(run: "Run") -> None:
    """Print the results of one of several runs."""
    print_result(run.result, "fit")


def print_seeds(runs: "Sequence[Run]", as_json: bool) -> None:
    """Print what the runs have in common; seeds are repetitions, not rival models."""
    from visionforge.cli.result_tables import print_comparison
    from visionforge.evaluation.comparison import comparison

    content = comparison([run.stored for run in runs], 0, runs[0].settings.evaluation.confidence)
    if as_json:
        print_json({"runs": [run.as_dict() for run in runs], "comparison": content})
        return
    say()
    print_comparison(content)
    say()
    say(f"again: visionforge runs compare {' '.join(str(shown(run.path)) for run in runs)}")


COMMAND = Command(
    "fit",
    "train a network, test its best checkpoint, write the run folder; with --seeds 3 or --folds 5, several",
    run,
    place=10,
    examples=(
        "fit photos/ --minutes 10",
        "fit --config configs/quickstart.yaml",
        "fit --config configs/resnet18_28.yaml --data.dataset breastmnist --trainer.max_epochs 10",
    ),
)
