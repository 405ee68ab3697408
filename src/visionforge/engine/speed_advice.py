"""What makes a training faster on this machine, measured: threads, precision, and how memory is kept."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from visionforge.config.schema import Backbone
from visionforge.runs.provenance import usable_cores

RESOLUTION, BATCH, CLASSES = 28, 64, 10
ROUNDS = 3  # each candidate is timed in, after one to warm up; they take turns
WORTH = 1.05  # by how much another choice has to be faster to be recommended
BUSY = 0.5  # share of the cores that other work may keep busy before the figures say little


@dataclass(frozen=True)
class SpeedAdvice:
    """How fast a network trains here, and what follows.

    Attributes:
        network: What was trained.
        device: Torch's name of the device.
        threads: Number of threads → images per second, round by round; empty on a GPU.
        precisions: `trainer.precision` → images per second, round by round.
        default_threads: How many threads torch uses if nobody says anything.
        cores: How many this process may use.
        load: How many processes wanted a core before.
    """

    network: str
    device: str
    threads: Mapping[int, Sequence[float]]
    precisions: Mapping[str, Sequence[float]]
    default_threads: int
    cores: int
    load: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @property
    def _is_busy(self) -> bool:
        return self.load > BUSY * self.cores

    def lines(self) -> list[str]:
        """Return figures and advice as a terminal shows them."""
        lines = [f"training {self.network}, batches of {BATCH} images of {RESOLUTION}×{RESOLUTION} pixels:"]
        if self._is_busy:
            lines.append(f"  other work kept {self.load:.1f} of {self.cores} cores busy: measure again when they idle")
        rates = {count: statistics.median(values) for count, values in self.threads.items()}
        precisions = {name: statistics.median(values) for name, values in self.precisions.items()}
        named = {f"{count} thread{'' if count == 1 else 's'}": rate for count, rate in rates.items()}
        lines += [f"  {name:>11}  {rate:8,.0f} images/s" for name, rate in (named | precisions).items()]
        return [*lines, *self._about_threads(rates), *self._about_precision(precisions), *_about_memory(self.device)]

    def _about_threads(self, rates: Mapping[int, float]) -> list[str]:
        if not rates or self._is_busy:
            return []
        best, default = max(rates, key=lambda count: rates[count]), self.default_threads
        gain = rates[best] / rates[default]
        lines = [f"the {default} threads that are used now are right"]
        if gain > WORTH:
            lines = [f"OMP_NUM_THREADS={best} trains {gain:.1f} times as fast as the {default} that are used now"]
        together = self.cores * rates[1] / rates[best]
        if self.cores > 1 and together > WORTH:
            lines.append(
                f"{self.cores} trainings of one thread each, side by side, do up to {together:.1f} times as much "
                f"(--tune.workers {self.cores}, --workers {self.cores})"
            )
        return lines

    def _about_precision(self, rates: Mapping[str, float]) -> list[str]:
        gain = rates["bf16-mixed"] / rates["32-true"]
        if gain > WORTH:
            return [f"--trainer.precision bf16-mixed trains {gain:.1f} times as fast (auto takes it where it is safe)"]
        return [f"bfloat16 is not faster here ({gain:.1f} times): leave trainer.precision"]


def advise(backbone: str = "resnet18") -> SpeedAdvice:
    """Train a network for some steps in several ways, which takes about half a minute on two cores.

    Args:
        backbone: Its name.

    Raises:
        SettingsError: If there is no such backbone, or it does not take images of 28×28 pixels.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    default = torch.get_num_threads()
    step = _step_of(backbone, device)
    threads = thread_counts(cores, default) if device == "cpu" else []
    try:
        counted = {count: _with_threads(step, count) for count in threads}
        by_threads = _rates(counted)
        best = max(by_threads, key=lambda count: statistics.median(by_threads[count]), default=default)
        torch.set_num_threads(best)
        by_precision = _rates({"32-true": lambda: step(False), "bf16-mixed": lambda: step(True)})
    finally:
        torch.set_num_threads(default)
    return SpeedAdvice(backbone, device, by_threads, by_precision, default, cores, load)


def thread_counts(cores: int, default: int) -> list[int]:
    """Return the numbers of threads to try: powers of two up to all cores, all cores, and what is used now.

    >>> thread_counts(12, 6)
    [1, 2, 4, 6, 8, 12]
    """
    return sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores, default})


def _step_of(backbone: str, device: str) -> Callable[[bool], None]:
    """Return a function that trains for a step, in bfloat16 or not."""
    import torch
    from torch.nn.functional import cross_entropy

    from visionforge.models.build import build_network
    from visionforge.models.volumes import channels_last, to_channels_last

    made, _ = build_network(Backbone(name=backbone, pretrained=False), 3, CLASSES, RESOLUTION)
    network = to_channels_last(made.to(device)).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    images = channels_last(torch.rand(BATCH, 3, RESOLUTION, RESOLUTION, device=device))
    labels = torch.arange(BATCH, device=device) % CLASSES

    def step(bfloat16: bool) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _with_threads(step: Callable[[bool], None], count: int) -> Callable[[], None]:
    import torch

    def run() -> None:
        torch.set_num_threads(count)
        step(False)

    return run


def _rates(works: Mapping[Any, Callable[[], None]]) -> dict[Any, list[float]]:
    """Return images per second of every round; the candidates take turns, and the first turn warms up."""
    found: dict[Any, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if turn:
                found[name].append(BATCH / (time.perf_counter() - started))
    return found


def _about_memory(device: str) -> list[str]:
    if device != "cpu" or not sys.platform.startswith("linux"):
        return []
    return [
        "commands use freed memory again; Python does so if MALLOC_TRIM_THRESHOLD_=1073741824 and "
        "MALLOC_MMAP_THRESHOLD_=1073741824 are set before it starts"
    ]
