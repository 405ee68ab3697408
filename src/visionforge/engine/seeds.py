"""The same training with several seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from visionforge.config.loading import RawConfig
from visionforge.engine.fit import fit, request_of
from visionforge.engine.resume import WORDS, complete_run, outputs_of
from visionforge.engine.run import Run
from visionforge.errors import SettingsError
from visionforge.runs.config_hash import processes_of
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

    Raises:
        VisionForgeError: For every mistake that the user can mend, before the first run begins.
        Interrupted: If a signal ended a run.
    """
    choice = raw.values.get("resume")
    if choice not in (None, *WORDS):
        raise SettingsError(f"--resume: {choice} is one run, {FLAG} are several; allowed: {', '.join(WORDS)}")
    request = request_of(raw)
    settings = request.settings
    if isinstance(seeds, str):
        seeds = parse_seeds(seeds, settings.seed_everything)
    if processes_of(settings.trainer.model_dump()) is not None:
        raise SettingsError(f"trainer.devices: with {FLAG}, each run is on one device; set it to 1")
    anew = settings.resume == "never"
    trainer = settings.trainer
    if trainer.devices in ("auto", -1, "-1"):
        trainer = trainer.model_copy(update={"devices": 1})
    requests = [
        replace(
            request,
            settings=settings.model_copy(
                update={"trainer": trainer, "seed_everything": seed, "resume": "never" if anew else "auto"}
            ),
        )
        for seed in seeds
    ]

    from visionforge.engine.construction import Construction  # seconds

    runs = []
    for place, one in enumerate(requests, start=1):
        done = None
        if not anew:
            resolved = Construction(one.settings, sources=request.sources).resolved
            known = complete_run(resolved, outputs_of(one.settings))
            done = None if known is None else Run.of(known)
        begun(place, len(seeds), one.settings.seed_everything, done)
        if done is None:
            done = fit(one, interruption)
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
