"""Where the time of a training goes: Lightning's hooks timed, a few steps traced, and what there is to change.

Every hook that Lightning runs tells its profiler when it begins and ends, and hooks lie within each other. A moment
counts for the innermost of them, so the parts add up to the whole. Steps that are measured take turns with steps of
which only the duration is, and the ratio of the two is what the measuring costs.
"""

import contextlib
import logging
import os
import statistics
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler

from visionforge.engine.step_profile import OTHER_PARTS, STEP_PARTS, Operator, Part, StepProfile, advice

log = logging.getLogger(__name__)

TURN = 2  # every so many-th step is measured
LEAST = 5  # steps of either kind from which on its cost is told
WARM_UP = 3  # steps that allocate, and stand in no median
TRACED = 5  # steps after these that are traced
OPERATORS = 10  # of the traced steps that are told

_EPOCH, _NEXT = "run_training_epoch", ".train_dataloader_next"
_PARTS = {  # by how the name of a hook ends
    _NEXT: "input",
    ".batch_to_device": "transfer",
    ".transfer_batch_to_device": "transfer",
    ".on_before_batch_transfer": "transfer",
    ".on_after_batch_transfer": "augmentation",
    ".training_step": "forward",
    ".backward": "backward",
    ".on_before_backward": "backward",
    ".on_after_backward": "backward",
    ".optimizer_step": "optimiser",
    ".optimizer_zero_grad": "optimiser",
    ".on_before_optimizer_step": "optimiser",
    ".on_before_zero_grad": "optimiser",
    ".configure_gradient_clipping": "optimiser",
    ".lr_scheduler_step": "optimiser",
}


class StepProfiler(Profiler):
    """Times what a Trainer's fit does, and traces a few of its steps.

    On a GPU the device is waited for wherever a part ends, so that its work counts for what has asked for it; that
    is what measuring costs there.

    Args:
        trace: File for the trace, `*.json.gz`, which chrome://tracing and ui.perfetto.dev show; None writes none.
    """

    def __init__(self, trace: Path | None = None) -> None:
        super().__init__()
        self._trace = trace
        self._device = torch.device("cpu")
        self._tracer: torch.profiler.profile | None = None
        self._operators: tuple[Operator, ...] = ()
        self._stack: list[tuple[str, str]] = []  # hooks that have begun, with the part that they count for
        self._open = False  # a Trainer's other stages are not profiled
        self._clock = self._begun = self._step_begun = self._whole = 0.0
        self._elsewhere, self._traced = 0.0, 0  # seconds that the trace has taken, and steps that are in it
        self._in_epoch = self._in_step = self._validating = False
        self._measuring = True
        self._step = -1
        self._seconds: dict[str, float] = defaultdict(float)  # of everything that is no step
        self._current: dict[str, float] = defaultdict(float)
        self._parts = {name: array("d") for name in STEP_PARTS}  # a number per measured step
        self._durations: dict[bool, array[float]] = {True: array("d"), False: array("d")}  # by whether it was measured
        self._stepping = 0.0  # seconds of all steps that were not traced

    # --- what Lightning calls

    def start(self, action_name: str) -> None:
        """Note that a hook begins."""
        if not self._open:
            return
        if action_name.endswith(_NEXT):
            self._end_step()
            self._begin_step()
        elif ".on_validation" in action_name and self._in_step:
            self._end_step()
        if action_name.endswith(".on_validation_start"):
            self._validating = True
        if self._measuring:
            self._count()
            self._stack.append((action_name, self._part(action_name)))
        self._in_epoch |= action_name == _EPOCH

    def stop(self, action_name: str) -> None:
        """Note that a hook has ended."""
        if not self._open:
            return
        if action_name == _EPOCH:
            self._end_step()
        if self._stack and self._stack[-1][0] == action_name:
            self._count()
            self._stack.pop()
        if action_name.endswith(".on_validation_end") and action_name.startswith("[Strategy]"):
            self._validating = False

    def summary(self) -> str:
        """Return nothing: what was found is read with `found`."""
        return ""

    # --- steps

    def _begin_step(self) -> None:
        self._step += 1
        traced = WARM_UP <= self._step < WARM_UP + TRACED and self._trace is not None
        if traced and self._tracer is None:
            self._begin_trace()
        elif not traced and self._tracer is not None:
            self._end_trace()
        self._traced += traced
        self._measuring = not traced and self._step % TURN == 0
        self._in_step = True
        self._clock = self._step_begun = self._now()
        self._current = defaultdict(float)

    def _end_step(self) -> None:
        if not self._in_step:
            return
        if self._measuring:
            self._count()
        self._in_step, took = False, self._now() - self._step_begun
        if self._tracer is not None:
            self._elsewhere += took
        else:
            self._stepping += took
            if self._step >= WARM_UP:
                self._durations[self._measuring].append(took)
        if self._measuring and self._tracer is None and self._step >= WARM_UP:
            for name, values in self._parts.items():
                values.append(self._current[name])
        self._measuring, self._clock = True, time.perf_counter()  # what is no step is always measured

    def _part(self, action: str) -> str:
        if action.startswith("[Callback]"):
            return "checkpoints" if "Checkpoint" in action else "callbacks"
        if action.startswith("[Logger]"):
            return "logging"
        if not self._in_epoch:
            return "set-up"
        if self._validating or ".on_validation" in action or ".val_dataloader" in action:
            return "validation"
        return next((part for end, part in _PARTS.items() if action.endswith(end)), "loop")

    def _count(self) -> None:
        """Count the time since the last hook for the part that has spent it."""
        now = self._now()
        name = self._stack[-1][1] if self._stack else "loop" if self._in_epoch else "set-up"
        (self._current if self._in_step and name in STEP_PARTS else self._seconds)[name] += now - self._clock
        self._clock = now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    # --- the trace

    def _begin_trace(self) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self._device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        begun = time.perf_counter()
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # without a GPU it complains that it has found none
        try:
            self._tracer = torch.profiler.profile(activities=kinds)
            self._tracer.start()
        except RuntimeError as error:  # another profiler runs, or the driver forbids it
            log.warning("no step is traced: %s", " ".join(str(error).split()))
            self._tracer = self._trace = None
        self._elsewhere += time.perf_counter() - begun

    def _end_trace(self) -> None:
        tracer, self._tracer = self._tracer, None
        if tracer is None:
            return
        begun = time.perf_counter()
        tracer.stop()
        self._operators = _operators(tracer, self._device, max(1, self._traced))
        if self._trace is not None:
            self._trace.parent.mkdir(parents=True, exist_ok=True)
            partial = self._trace.with_name(f".{self._trace.name}")
            tracer.export_chrome_trace(str(partial))
            partial.replace(self._trace)
        self._elsewhere += time.perf_counter() - begun

    # --- what was found

    @contextlib.contextmanager
    def training(self, device: torch.device, loggers: Sequence[Logger] = ()) -> Iterator[None]:
        """Profile what a Trainer does within.

        Args:
            device: What it trains on.
            loggers: Its loggers, whose calls count for `logging`.
        """
        self._device, self._open = device, True
        for logger in loggers:
            for name in ("log_metrics", "save"):
                setattr(logger, name, _Timed(self, logger, name))
        self._begun = self._clock = self._now()
        try:
            yield
        finally:
            self._end_step()
            self._end_trace()
            self._count()
            self._whole, self._open = self._now() - self._begun - self._elsewhere, False
            for logger in loggers:
                for name in ("log_metrics", "save"):
                    setattr(logger, name, getattr(logger, name).method)

    def found(self) -> StepProfile:
        """Return what was found; the training has ended."""
        measured, plain = self._durations[True], self._durations[False]
        rows = [Part(name=name, share=_ratio(self._seconds[name], self._whole)) for name in OTHER_PARTS]
        for name, values in self._parts.items():
            inside = _ratio(sum(values), sum(measured)) * self._stepping  # as if all steps had been measured
            step_ms = 1000 * statistics.median(values) if values else None
            rows.append(Part(name=name, share=_ratio(inside + self._seconds[name], self._whole), step_ms=step_ms))
        overhead = None
        if min(len(measured), len(plain)) >= LEAST:
            overhead = statistics.median(measured) / statistics.median(plain) - 1
        parts = tuple(row for row in rows if row.share > 0)
        return StepProfile(
            device=str(self._device),
            steps=self._step + 1,
            measured=len(measured),
            seconds=self._whole,
            step_ms=1000 * statistics.median(measured) if measured else None,
            overhead=overhead,
            parts=parts,
            operators=self._operators,
            advice=advice(parts),
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _operators(tracer: torch.profiler.profile, device: torch.device, steps: int) -> tuple[Operator, ...]:
    """Return the operators that have taken most time of their own."""
    name = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    found = sorted(((float(getattr(each, name)), each) for each in tracer.key_averages()), key=lambda pair: -pair[0])
    return tuple(
        Operator(name=each.key[:100], step_ms=microseconds / 1000 / steps, calls=each.count / steps)
        for microseconds, each in found[:OPERATORS]
        if microseconds > 0
    )


class _Timed:
    """A method of a logger that a profiler times."""

    def __init__(self, profiler: StepProfiler, logger: Logger, name: str) -> None:
        self._profiler, self._name = profiler, f"[Logger]{type(logger).__name__}.{name}"
        self.method = getattr(logger, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._profiler.profile(self._name):
            return self.method(*args, **kwargs)
