"""What many images, devices and trials ask for: what is measured here, and two simulations that go on from it.

    python -m benchmarks.planning measure [--postgresql URL]
    python -m benchmarks.planning checkpoints [--write-s 0.27 --restart-s 30]
    python -m benchmarks.planning search [--statement-ms 0.6 --statements 189]

`measure`: the bytes and seconds of a checkpoint, the statements and milliseconds that a trial costs its storage, and
how long the sampler takes as a study grows. `checkpoints` simulates failures of devices, and compares the interval that
loses least with Young's (1974). `search` simulates workers that share one database, trial by trial.
"""

import argparse
import heapq
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna

DEVICE_HOURS = 16_384 * 54 * 24 / 419  # between failures of one device: Llama 3 (2024), 419 in 54 days on 16,384
SPACE = {
    "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
    "weight_decay": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True),
    "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
    "mixup": optuna.distributions.FloatDistribution(0.0, 0.4),
    "batch_size": optuna.distributions.CategoricalDistribution((16, 32, 48, 64)),
    "rotation": optuna.distributions.IntDistribution(0, 15),
}
EPOCHS = 15


# --- what is measured


def checkpoint_cost(folder: Path) -> tuple[float, float]:
    """Return the megabytes of ResNet-18 with AdamW, and the seconds to write them so that they stay."""
    import torch
    from torchvision.models import resnet18

    network = resnet18(num_classes=8)
    optimizer = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
    seconds = []
    for number in range(5):
        path, started = folder / f"{number}.ckpt", time.perf_counter()
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        seconds.append(time.perf_counter() - started)
    return path.stat().st_size / 1e6, statistics.median(seconds)


def trial_cost(
    url: str | None, storage: optuna.storages.BaseStorage | None = None, running: int = 0
) -> tuple[float, float]:
    """Return the statements and milliseconds that a trial of `EPOCHS` epochs costs a storage while others run."""
    from sqlalchemy import event

    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    if storage is None:
        storage = optuna.storages.RDBStorage(url)
        event.listen(storage.engine, "before_cursor_execute", count)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(storage=storage, sampler=sampler, pruner=optuna.pruners.MedianPruner())

    def objective(trial: optuna.Trial) -> float:
        for name, distribution in SPACE.items():
            trial._suggest(name, distribution)
        for epoch in range(EPOCHS):
            trial.report(epoch / EPOCHS, epoch)
            trial.should_prune()
        return 1.0

    for _ in range(running):
        other = study.ask(SPACE)
        for epoch in range(EPOCHS // 2):
            other.report(0.5, epoch)
    study.optimize(objective, n_trials=5)
    before, started, trials = statements, time.perf_counter(), 20
    study.optimize(objective, n_trials=trials)
    return (statements - before) / trials, 1000 * (time.perf_counter() - started) / trials


def sampler_cost(trials: int) -> float:
    """Return the milliseconds that TPE takes for a trial's values after so many trials."""
    rng = np.random.default_rng(0)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    frozen = []
    for number in range(trials):
        values = {name: _drawn(distribution, rng) for name, distribution in SPACE.items()}
        frozen.append(optuna.trial.create_trial(params=values, distributions=SPACE, value=float(rng.random())))
        frozen[-1].number = number
    study.add_trials(frozen)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        study.ask(SPACE)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def _drawn(distribution: optuna.distributions.BaseDistribution, rng: np.random.Generator) -> float | int:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return int(rng.integers(distribution.low, distribution.high + 1))
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return float(rng.uniform(distribution.low, distribution.high))


def measure(url: str | None) -> None:
    """Print all of it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        size, seconds = checkpoint_cost(folder)
        print(f"checkpoint of ResNet-18 with AdamW: {size:.0f} MB, {seconds:.2f} s to write and sync")
        sqlite = trial_cost(f"sqlite:///{folder}/study.db")
        print(f"a trial of {EPOCHS} epochs in SQLite: {sqlite[0]:.0f} statements, {sqlite[1]:.0f} ms")
        journal = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
        )
        print(f"in a journal: {trial_cost(None, journal)[1]:.0f} ms")
        for running in (0, 100, 1000) if url is not None else ():
            found = trial_cost(url, running=running)
            print(f"in PostgreSQL while {running:,} others run: {found[0]:.0f} statements, {found[1]:.0f} ms")
    for trials in (100, 1000, 10_000):
        print(f"values from TPE after {trials:,} trials: {sampler_cost(trials):.0f} ms")


# --- checkpoints


def lost(interval_s: float, write_s: float, restart_s: float, failure_s: float, failures: int = 20_000) -> float:
    """Return the share of time that gives no progress: writing, work that is done again, and starting again.

    Args:
        interval_s: Seconds of work between checkpoints.
        write_s: Seconds to write one, in which nothing is trained.
        restart_s: Seconds from a failure until the training goes on.
        failure_s: Mean seconds between failures of the whole training, exponentially distributed.
        failures: How many are drawn.
    """
    between = np.random.default_rng(0).exponential(failure_s, failures)
    kept = np.floor(between / (interval_s + write_s)) * interval_s  # what the last checkpoint before a failure has
    return float(1 - kept.sum() / (between + restart_s).sum())


def checkpoints(write_s: float, restart_s: float) -> None:
    """Print the best interval for several numbers of devices, and what it loses."""
    print("| devices | between failures | best interval | Young's | lost at it | lost at 10 min | lost per failure |")
    print("|---|---|---|---|---|---|---|")
    intervals = [10 * 1.1**k for k in range(90)]
    for devices in (1, 8, 100, 1000, 10_000):
        failure = DEVICE_HOURS * 3600 / devices

        def share(interval: float, failure: float = failure) -> float:
            return lost(interval, write_s, restart_s, failure)

        best = min(intervals, key=share)
        young = math.sqrt(2 * write_s * failure)
        print(
            f"| {devices:,} | {failure / 3600:,.1f} h | {best:,.0f} s | {young:,.0f} s | {100 * share(best):.2f} % | "
            f"{100 * share(600.0):.2f} % | {(best / 2 + restart_s) / 60:.1f} min |"
        )


# --- a search


def searched(
    workers: int, trials: int, trial_s: float, served_s: float, failure_s: float, seed: int
) -> dict[str, float]:
    """Simulate workers that take trial after trial, whose statements one database answers one after the other.

    Args:
        workers: How many there are.
        trials: How many trials are to be completed.
        trial_s: Median seconds of a trial; half of them lie within a factor of two.
        served_s: Seconds that the database works for a trial, spread over its epochs.
        failure_s: Mean seconds between failures of a worker; its trial is begun again by another.
        seed: Draws all of it.
    """
    rng = np.random.default_rng(seed)
    free_at, busy, clock = 0.0, 0.0, 0.0
    events: list[tuple[float, int, float]] = [(rng.uniform(0, trial_s), worker, 0.0) for worker in range(workers)]
    heapq.heapify(events)
    finished, again, waited = 0, 0.0, 0.0
    step_s = served_s / EPOCHS
    running: dict[int, list[float]] = {}
    while finished < trials:
        clock, worker, _ = heapq.heappop(events)
        start = max(clock, free_at)
        free_at = start + step_s
        busy, waited = busy + step_s, waited + start - clock
        state = running.get(worker)
        if state is None:
            length = trial_s * math.exp(rng.normal(0, 1.03))
            running[worker] = state = [0.0, length, rng.exponential(failure_s)]
        elif state[0] >= EPOCHS:
            finished += 1
            del running[worker]
            heapq.heappush(events, (free_at, worker, 0.0))
            continue
        state[0] += 1
        epoch = state[1] / EPOCHS
        if state[2] < epoch:
            again += state[0] * epoch
            del running[worker]
            heapq.heappush(events, (free_at + state[2] + 60, worker, 0.0))
            continue
        state[2] -= epoch
        heapq.heappush(events, (free_at + epoch, worker, 0.0))
    return {"hours": clock / 3600, "busy": min(1.0, busy / clock), "waited": waited / finished, "again": again / 3600}


def search(statement_ms: float, statements: float) -> None:
    """Print how a search of 10,000 trials goes with more and more workers."""
    served = statement_ms * statements / 1000
    print("| workers | trial of | hours | database busy | wait per trial | device hours done again |")
    print("|---|---|---|---|---|---|")
    for trial_s in (60.0, 600.0):
        for workers in (10, 100, 1000, 5000):
            found = searched(workers, 10_000, trial_s, served, DEVICE_HOURS * 3600, 0)
            print(
                f"| {workers:,} | {trial_s / 60:g} min | {found['hours']:,.1f} | {100 * found['busy']:.1f} % | "
                f"{found['waited']:.2f} s | {found['again']:.2f} |"
            )


def main() -> None:
    """Parse, and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "checkpoints", "search"))
    parser.add_argument("--postgresql")
    parser.add_argument("--write-s", type=float, default=0.27)
    parser.add_argument("--restart-s", type=float, default=30.0)
    parser.add_argument("--statement-ms", type=float, default=0.6)
    parser.add_argument("--statements", type=float, default=189.0)
    options = parser.parse_args()
    calls: dict[str, Callable[[], None]] = {
        "measure": lambda: measure(options.postgresql),
        "checkpoints": lambda: checkpoints(options.write_s, options.restart_s),
        "search": lambda: search(options.statement_ms, options.statements),
    }
    calls[options.what]()


if __name__ == "__main__":
    main()
