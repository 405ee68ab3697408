"""What a cell has cost: processor time, memory and energy, as far as the machine tells."""

import contextlib
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

POWERCAP = Path("/sys/class/powercap")
SAMPLE_S = 10.0  # often enough that no counter wraps round unseen
_JOULES_PER_WH = 3600.0


class Meter:
    """Measures this process in a `with` block.

    Args:
        alone: No other worker is at work, so that the counters of the whole processor are this one's.
        folder: Where the kernel shows the counters.
    """

    def __init__(self, alone: bool, folder: Path = POWERCAP) -> None:
        self._zones = counters(folder) if alone else {}
        self._used = 0.0
        self._last: dict[Path, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._ended: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Begin."""
        _forget_peak()
        self._wall, self._cpu = time.monotonic(), cpu_seconds()
        self._last = _read_all(self._zones)
        if self._last:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._add()
        self._ended = {
            "wall_seconds": time.monotonic() - self._wall,
            "cpu_seconds": cpu_seconds() - self._cpu,
            "peak_bytes": peak_bytes(),
            "counted_wh": self._used / _JOULES_PER_WH if self._last else None,
        }

    @property
    def found(self) -> dict[str, Any]:
        """Seconds on the clock and of the processor, most memory in bytes, and watt-hours if they were counted.

        Empty before the block has ended.
        """
        return self._ended

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._add()

    def _add(self) -> None:
        now = _read_all(self._zones)
        for path, value in now.items():
            before = self._last.get(path, value)
            self._used += ((value - before) % (self._zones[path] + 1)) / 1e6
        self._last = now or self._last


def counters(folder: Path) -> Mapping[Path, int]:
    """Return the energy counters of the processors that can be read → their largest value, in microjoules."""
    found = {}
    for zone in sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else ():
        if not re.fullmatch(r"intel-rapl:\d+", zone.name):  # parts of a processor are in its whole
            continue
        with contextlib.suppress(OSError, ValueError):
            int((zone / "energy_uj").read_text())
            found[zone / "energy_uj"] = int((zone / "max_energy_range_uj").read_text())
    return found


def _read_all(zones: Mapping[Path, int]) -> dict[Path, int]:
    found = {}
    for path in zones:
        with contextlib.suppress(OSError, ValueError):
            found[path] = int(path.read_text())
    return found


def cpu_seconds() -> float:
    """Return the processor time of this process, all its threads, and its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # Linux: the peak begins anew
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int | None:
    """Return the most memory of this process since the meter began; None where the system does not tell."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024
    return None


def energy_wh(cpu: float | None, counted: float | None, watts: float | None) -> tuple[float | None, str | None]:
    """Return the energy of a cell in watt-hours, and where the number comes from.

    Args:
        cpu: Processor time in seconds.
        counted: What the processor has counted, in watt-hours.
        watts: Power of a busy core, in watts; None estimates nothing.

    >>> energy_wh(7200.0, None, 10.0), energy_wh(7200.0, 3.0, None), energy_wh(7200.0, None, None)
    ((20.0, 'estimated'), (3.0, 'counted'), (None, None))
    """
    if watts is not None:
        return (None, None) if cpu is None else (cpu / 3600.0 * watts, "estimated")
    return (None, None) if counted is None else (counted, "counted")
