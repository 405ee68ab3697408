"""The same training with several seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from visionforge.config.loading import RawConfig
from visionforge.engine.run import Run
from visionforge.engine.several_fits import FITS, Making, for_each, refuse_one_run
from visionforge.errors import SettingsError
from visionforge.runs.signals import Interruption

FLAG = "--seeds"
MOST = 100
# place from 1, seeds in all, seed, and a run that is complete already
Begun = Callable[[int, int, int, Run | None], None]


def fit_seeds(
    raw: RawConfig,
    seeds: str | Sequence[int],
    interruption: Interruption,
    begun: Begun = lambda *_: None,
    ended: Callable[[Run], None] = lambda _: None,
    making: Making = FITS,
) -> list[Run]:
    """Fit with several seeds, one after the other.

    A complete run of the same settings and seed is taken as it is and an interrupted one is continued, so that the same
    call finishes what was interrupted; with `resume: never` all of them are trained anew.

    Args:
        raw: The settings as they were given.
        seeds: The seeds, or a text that `parse_seeds` reads.
        interruption: Handles the signals.
        begun: Called before each seed.
        ended: Called with each run that was trained now.
        making: What is made, a fit or a probe.

    Raises:
        VisionForgeError: For every mistake that the user can mend, before the first run begins.
        Interrupted: If a signal ended a run.
    """
    refuse_one_run(raw, FLAG)
    request = making.request_of(raw)
    if isinstance(seeds, str):
        seeds = parse_seeds(seeds, request.settings.seed_everything)
    settings = for_each(request.settings, FLAG)
    requests = [replace(request, settings=settings.model_copy(update={"seed_everything": seed})) for seed in seeds]
    runs = []
    for place, one in enumerate(requests, start=1):
        done = making.complete(one)
        begun(place, len(seeds), one.settings.seed_everything, done)
        if done is None:
            done = making.make(one, interruption)
            ended(done)
        runs.append(done)
    return runs


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
