"""What seeds and folds have in common: several fits of one configuration, each on one device, none made twice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from visionforge.config.loading import RawConfig, switched
from visionforge.config.schema import RunSettings
from visionforge.engine.first_imports import import_lightning
from visionforge.engine.fit import Origin, Request, fit, request_of
from visionforge.engine.resume import WORDS, complete_run, outputs_of
from visionforge.engine.run import Run
from visionforge.errors import SettingsError
from visionforge.runs.config_hash import processes_of
from visionforge.runs.signals import Interruption


class Make(Protocol):
    """Makes a run."""

    def __call__(self, request: Request, interruption: Interruption, parent: dict[str, Any] | None = None, /) -> Run:
        """Make the run of a request; `parent` is what it comes from, for its manifest."""


@dataclass(frozen=True)
class Making:
    """What is made for every seed or fold, or every cell of a benchmark.

    Attributes:
        request_of: Checks settings.
        make: Makes a run, given what it comes from.
        complete: Returns the newest complete run of a request; None if there is none, or it is to be made anew.
    """

    request_of: Callable[[RawConfig], Request]
    make: Make
    complete: Callable[[Request], Run | None]


def refuse_one_run(raw: RawConfig, flag: str) -> None:
    """Refuse what is for one run where several are asked for.

    Raises:
        SettingsError: If `resume` names one, or one is to be profiled.
    """
    if switched("--profile", raw.values.pop("profile", None)):
        raise SettingsError(f"--profile: is for one training, {flag} are several; leave one of them out")
    choice = raw.values.get("resume")
    if choice not in (None, *WORDS):
        raise SettingsError(f"--resume: {choice} is one run, {flag} are several; allowed: {', '.join(WORDS)}")


def for_each(settings: RunSettings, flag: str) -> RunSettings:
    """Return the settings with what holds for each fit: one device, and go on with what was interrupted, or never.

    Raises:
        SettingsError: If more devices are asked for.
    """
    if processes_of(settings.trainer.model_dump()) is not None:
        raise SettingsError(f"trainer.devices: with {flag}, each run is on one device; set it to 1")
    trainer = settings.trainer
    if trainer.devices in ("auto", -1, "-1"):
        trainer = trainer.model_copy(update={"devices": 1})
    resume = "never" if settings.resume == "never" else "auto"
    return settings.model_copy(update={"trainer": trainer, "resume": resume})


def complete_fit(request: Request) -> Run | None:
    """Return the newest complete run of a fit; None if there is none, or it is to be made anew."""
    if request.settings.resume == "never":
        return None
    import_lightning()
    from visionforge.engine.construction import Construction

    resolved = Construction(request.settings, sources=request.sources).resolved
    known = complete_run(resolved, outputs_of(request.settings))
    return None if known is None else Run.of(known)


def make_fit(request: Request, interruption: Interruption, parent: dict[str, Any] | None = None) -> Run:
    """Train and test a network; see `fit.fit`."""
    return fit(request, interruption, Origin(parent))


FITS = Making(request_of, make_fit, complete_fit)
