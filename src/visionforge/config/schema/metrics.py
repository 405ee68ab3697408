"""Metrics: what they are called, which way is better, which labels they fit; how they are computed is loaded lazily.

A metric is declared once. Those of this package lie in `visionforge.scoring.builtin`; another is known by name where
somebody registers it. From here training logs, monitor, search, evaluation, reports and comparison learn of it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, overload

from visionforge.config.registration import import_all, origin, same_definition
from visionforge.config.schema.tasks import TaskName, asked_problem, fits

_PACKAGE = "visionforge.scoring.builtin"
_RESERVED = ("loss", "epoch", "step")
PREFIX = "val/"  # under which the validation split's metrics are logged
LOSS = "val/loss"  # logged like a metric, but computed on logits
ALWAYS = ("val/loss", "val/accuracy", "val/auc")  # logged of every task

Compute = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that says how good predictions are.

    Attributes:
        name: Key in `metrics.json`; ``val/NAME`` in the training: small letters, digits and _.
        label: What people call it, in tables.
        compute: Function of (truth, probabilities, predicted, weights), which returns a number; NaN is undefined. Of
            N cases and K classes or labels, all are read-only arrays of NumPy: `truth` (N,) int64 classes, or (N, K)
            0/1 where an image may have several; `probabilities` (N, K) float64; `predicted` as `truth`, labels at 0.5;
            `weights` (N,) float64, how often each case counts: 1, and in a resample how often it was drawn. Of masks,
            `truth` (255 does not count) and `predicted` are (N, H, W) integers, and `probabilities` is None. Of boxes,
            likewise, `truth` is (N, M, 5) rows of class and corners, and `predicted` (N, D, 6) with the score between
            them; the class -1 is no box.
        higher_is_better: Which way is better.
        tasks: Names of the tasks that it fits, or forms of labels that tasks have: ``classes``, ``labels``, ``grades``,
            ``masks``, ``boxes``; None is all that predict classes or labels of images.
        every_epoch: Log it at every validation; otherwise only where epochs or trials are compared by it.
        interval: It has one: resampling, or `behind`, tells how far off it may be.
        behind: Of this package's, a function of `visionforge.scoring.cases.Weighted` that says what its limits follow
            from, a `visionforge.scoring.limits.Behind`; None takes those of resampling.
        of_probabilities: It judges the probabilities and not the decisions, so it changes with the temperature.
        of_positive: Of two classes it depends on which is positive.
        shared: `compute` is one of this package's, a function of `visionforge.scoring.cases.Weighted` → (B,).
        position: Where it is listed.

    Raises:
        ValueError: If a name, a task or the function is not allowed.
    """

    name: str
    label: str
    compute: Compute
    higher_is_better: bool = True
    tasks: tuple[str, ...] | None = None
    every_epoch: bool = True
    interval: bool = True
    behind: Callable[..., Any] | None = None
    of_probabilities: bool = False
    of_positive: bool = False
    shared: bool = False
    position: int = 100

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]{0,59}", name):
            raise ValueError(
                f"metric {name!r}: its name is not allowed; allowed: small letters, digits and _, at most 60"
            )
        if name in _RESERVED or name.endswith("_tta"):
            raise ValueError(
                f"metric {name}: the name is taken; not allowed: {', '.join(_RESERVED)}, and _tta at the end"
            )
        if not isinstance(self.label, str) or not self.label.strip():
            raise ValueError(f"metric {name}: give it a label, by which tables call it")
        if self.tasks is not None and not self.shared and (problem := asked_problem(self.tasks)):
            raise ValueError(f"metric {name}: {problem}")
        if not callable(self.compute):
            raise ValueError(f"metric {name}: compute is no function")

    @property
    def logged(self) -> str:
        """Return the name under which the validation split's value is logged."""
        return f"{PREFIX}{self.name}"


_METRICS: dict[str, Metric] = {}
_state = {"complete": False}


def metrics() -> dict[str, Metric]:
    """Return name → metric of all that are registered, in the order in which results list them."""
    if not _state["complete"]:
        _state["complete"] = True
        import_all(_PACKAGE)
    return dict(sorted(_METRICS.items(), key=lambda item: item[1].position))


def metrics_of(task: TaskName) -> list[Metric]:
    """Return the metrics that fit a kind of labels."""
    return [metric for metric in metrics().values() if fits(metric.tasks, task)]


def watched_names(task: TaskName | None = None) -> tuple[str, ...]:
    """Return what epochs and trials can be compared by: ``val/loss``, and ``val/NAME`` of every metric that fits."""
    fitting = metrics().values() if task is None else metrics_of(task)
    return (LOSS, *(metric.logged for metric in fitting))


def watched_problem(logged: str, task: TaskName | None = None) -> str | None:
    """Return why epochs and trials cannot be compared by a name; None if they can.

    Args:
        logged: The name, such as ``val/auc``.
        task: Kind of labels; None if it is not known.
    """
    allowed = watched_names(task)
    if logged in allowed:
        return None
    wrong = f"does not fit {task} labels" if logged in watched_names() else "is no metric that is logged"
    close = get_close_matches(logged, allowed, 1)
    hint = f"; nearest: {close[0]}" if close else ""
    return f"{logged!r} {wrong}{hint}; allowed: {', '.join(allowed)}"


def higher_is_better(logged: str) -> bool:
    """Return which way is better of a logged value such as ``val/auc``; of an unknown one, up."""
    if logged == LOSS:
        return False
    metric = metrics().get(logged.removeprefix(PREFIX))
    return metric is None or metric.higher_is_better


@overload
def register_metric(given: Metric, *, replace: bool = False) -> Metric: ...
@overload
def register_metric(given: Compute) -> Compute: ...
@overload
def register_metric(
    given: None = None,
    *,
    name: str | None = None,
    label: str | None = None,
    higher_is_better: bool = True,
    tasks: Sequence[str] | None = None,
    every_epoch: bool = True,
    replace: bool = False,
) -> Callable[[Compute], Compute]: ...


def register_metric(
    given: Metric | Compute | None = None,
    *,
    name: str | None = None,
    label: str | None = None,
    higher_is_better: bool = True,
    tasks: Sequence[str] | None = None,
    every_epoch: bool = True,
    replace: bool = False,
) -> Any:
    """Make a metric known by its name; a decorator of its function, bare or with arguments, or a call with a `Metric`.

    Args:
        given: The function, as `Metric.compute` says, or a whole `Metric`.
        name: Its name; None takes the function's.
        label: What tables call it; None takes the name with spaces.
        higher_is_better: Which way is better.
        tasks: As `Metric.tasks`.
        every_epoch: Log it at every validation.
        replace: Take the place of another one of yours that was registered under this name before.

    Raises:
        ValueError: If something is not allowed, or the name is that of another metric.

    Example::

        @vf.register_metric(label="share of sure mistakes", higher_is_better=False, tasks=("classes",))
        def sure_mistakes(truth, probabilities, predicted, weights):
            wrong = (predicted != truth) & (probabilities.max(axis=1) > 0.9)
            return np.average(wrong, weights=weights)
    """
    if isinstance(given, Metric):
        _add(given, replace)
        return given

    def decorate(compute: Compute) -> Compute:
        own = str(name or getattr(compute, "__name__", ""))
        shown = label or own.replace("_", " ")
        metric = Metric(
            name=own,
            label=shown,
            compute=compute,
            higher_is_better=higher_is_better,
            tasks=None if tasks is None else (tasks,) if isinstance(tasks, str) else tuple(tasks),
            every_epoch=every_epoch,
        )
        _add(metric, replace)
        return compute

    return decorate if given is None else decorate(given)


def _add(metric: Metric, replace: bool) -> None:
    if not origin(metric.compute).startswith(f"{_PACKAGE}."):
        metrics()  # so that no name of this package's is taken
    known = _METRICS.get(metric.name)
    kept = known is not None and not (replace and not known.shared)
    if known is not None and kept and not same_definition(known.compute, metric.compute):
        raise ValueError(f"a metric named {metric.name!r} is registered already, by {origin(known.compute)}")
    _METRICS[metric.name] = metric
