"""`visionforge fit --seeds`: the same training with several seeds, and what the runs have in common."""

from visionforge.cli.arguments import say
from visionforge.cli.compare import comparison, print_comparison
from visionforge.cli.plan import Plan, runs_like
from visionforge.cli.precheck import check_arguments
from visionforge.cli.run import fit, without
from visionforge.config.loading import read_arguments
from visionforge.errors import SettingsError
from visionforge.runs.anchors import shown
from visionforge.runs.files import refuse_links
from visionforge.runs.identity import processes_of
from visionforge.runs.signals import Interruption
from visionforge.runs.store import StoredRun, load_run

FLAG = "--seeds"
MOST = 100


def run_seeds(arguments: list[str]) -> int:
    """Fit with several seeds and compare the runs; return the exit status.

    A complete run of the same settings and seed is taken as it is and an interrupted one is continued, so that the same
    command finishes what was interrupted; ``--resume never`` trains all of them anew.

    Args:
        arguments: What follows `fit`, in its normal form.

    Raises:
        VisionForgeError: For every mistake that the user can mend, before the first run begins.
        Interrupted: If a signal ended a run.
    """
    rest = without(arguments, (FLAG, "--seed_everything"))
    raw = read_arguments([*rest, *_given(arguments, "--seed_everything")])
    settings = check_arguments(raw, "fit")
    seeds = parse_seeds(_given(arguments, FLAG)[1], settings.seed_everything)
    if settings.resume not in (None, "auto", "never"):
        raise SettingsError(f"--resume: {settings.resume} is one run, {FLAG} are several; allowed: auto, never")
    if processes_of(settings.trainer.model_dump()) is not None:
        raise SettingsError(f"trainer.devices: with {FLAG}, each run is on one device; set it to 1")
    if settings.trainer.devices in ("auto", -1, "-1"):
        rest += ["--trainer.devices", "1"]
    anew = settings.resume == "never"
    rest = [*without(rest, ("--resume",)), "--resume", "never" if anew else "auto"]
    done: list[StoredRun] = []
    with Interruption() as interruption:
        for number, seed in enumerate(seeds, start=1):
            one = [*rest, "--seed_everything", str(seed)]
            like = check_arguments(read_arguments(one), "fit")
            known = runs_like(like)
            complete = [run for run in known if run.state == "complete" and run.metrics]
            where = f"seed {seed} ({number} of {len(seeds)})"
            if complete and not anew:
                run = complete[-1]
                refuse_links(run.workspace.path)
                say(f"{where}: complete already, {shown(run.workspace.path)}")
            else:
                say(where)
                plan = Plan(interruption=interruption)
                fit(one, plan)
                assert plan.made is not None
                run = load_run(plan.made)
            done.append(run)
    say()
    print_comparison(comparison(done, 0, settings.evaluation.confidence))  # seeds are repetitions, not rival models
    say()
    say(f"again: visionforge runs compare {' '.join(str(shown(r.workspace.path)) for r in done)}")
    return 0


def parse_seeds(text: str, first: int) -> list[int]:
    """Return the seeds that ``3`` (that many, from the configured one on) or ``1,7,42`` (these) mean.

    Raises:
        SettingsError: If it is neither.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    problem = SettingsError(
        f"{FLAG}: {text} is not allowed; allowed: a number of seeds, 1 to {MOST}, or several seeds such as 1,7,42"
    )
    if not parts or not all(part.isdecimal() for part in parts):
        raise problem
    numbers = [int(part) for part in parts]
    if len(numbers) == 1 and "," not in text:
        if not 1 <= numbers[0] <= MOST:
            raise problem
        numbers = list(range(first, first + numbers[0]))
    if len(set(numbers)) < len(numbers) or max(numbers) >= 2**32 or len(numbers) > MOST:
        raise problem
    return numbers


def _given(arguments: list[str], flag: str) -> list[str]:
    """Return a flag and its value as they were given last, or nothing.

    Raises:
        SettingsError: If it has no value.
    """
    found: list[str] = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != flag:
            continue
        if not equals:
            if position + 1 >= len(arguments) or arguments[position + 1].startswith("--"):
                raise SettingsError(f"{flag}: needs a value")
            value = arguments[position + 1]
        found = [flag, value]
    return found
