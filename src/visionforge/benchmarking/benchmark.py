"""A benchmark: its matrix planned, its cells shared by workers, and its leaderboard kept current."""

import json
import logging
from collections.abc import Callable, Sequence

import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial
from pydantic_core import PydanticSerializationError

from visionforge.benchmarking.found import Benchmark
from visionforge.benchmarking.plan import Cell, data_problems, in_order, plan, with_problems
from visionforge.benchmarking.progress import Progress
from visionforge.benchmarking.runner import CellWork, Work, nothing_in_line, run_cells
from visionforge.benchmarking.study import (
    WITHOUT_DATA,
    BenchmarkFolder,
    Status,
    open_benchmark,
    put_cells_in_line,
    read_benchmark,
    statuses,
)
from visionforge.benchmarking.writers import write_leaderboard
from visionforge.config.environment import warn_of_environment
from visionforge.config.loading import RawConfig
from visionforge.config.schema import RunSettings
from visionforge.config.suites import with_suite
from visionforge.data.registry import dataset_info
from visionforge.data.source import fingerprint
from visionforge.engine.resume import outputs_of
from visionforge.engine.validation import check_settings
from visionforge.engine.worker_processes import Process, start_worker
from visionforge.errors import DataError, SettingsError
from visionforge.printable import printable
from visionforge.redaction import redact_settings
from visionforge.runs.files import write_atomic
from visionforge.runs.logfile import RunLog
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.tuning.search import quiet_optuna
from visionforge.tuning.storage import shown_storage
from visionforge.tuning.workers import share

log = logging.getLogger(__name__)

HIDDEN = "…"
WORKER = "visionforge.benchmarking.worker"
DEATHS_PER_CELL = 2  # one that kills its process is tried once more


def settings_of(raw: RawConfig) -> RunSettings:
    """Check the settings of a benchmark; those of its suite lie underneath, and rules are checked cell by cell.

    Raises:
        SettingsError: With a line for every mistake.
    """
    raw = with_suite(raw)
    return check_settings(raw.values, "fit", raw.sources, rules=False)


def name_of(settings: RunSettings) -> str:
    """Return the name of a benchmark."""
    chosen = settings.benchmark
    return chosen.name or chosen.suite or "benchmark"


def folder_of(settings: RunSettings) -> BenchmarkFolder:
    """Return where a benchmark lies."""
    return BenchmarkFolder(outputs_of(settings) / "benchmarks" / name_of(settings))


def list_cells(settings: RunSettings) -> list[tuple[Cell, Status]]:
    """Return all cells in the order of their work, and what has become of each; nothing is made or downloaded.

    Raises:
        SettingsError: If a name is unknown, or a recipe cannot be read.
        RunError: If the study cannot be read.
    """
    quiet_optuna()
    cells, folder = plan(settings), folder_of(settings)
    chosen = settings.benchmark
    there = folder.journal if chosen.storage == "journal" else folder.database
    if chosen.storage in (None, "journal") and not there.is_file():
        cells = in_order(cells)
        found = statuses([], cells)
    else:
        study = read_benchmark(chosen, folder, name_of(settings))
        cells = in_order(with_problems(cells, study.user_attrs.get(WITHOUT_DATA, {})))
        found = statuses(study.get_trials(deepcopy=False), cells)
    return [(cell, found[cell.key]) for cell in cells]


def rewrite(settings: RunSettings) -> Benchmark:
    """Write the leaderboard anew from what is there.

    Raises:
        RunError: If there is no such benchmark.
    """
    quiet_optuna()
    name, folder = name_of(settings), folder_of(settings)
    study = read_benchmark(settings.benchmark, folder, name)
    return Benchmark(folder.path, write_leaderboard(study, folder, name, plan(settings), settings.benchmark.watts))


def benchmark(
    settings: RunSettings,
    interruption: Interruption,
    retry_failed: bool = False,
    told: Callable[[str], None] = lambda _: None,
    work: Work | None = None,
) -> Benchmark:
    """Train and test every cell that is not complete; the same call goes on with what was interrupted.

    Args:
        settings: The settings; the section `benchmark` says what the matrix is.
        interruption: Handles the signals.
        retry_failed: Try cells again that have failed.
        told: Called with a line before the start: how many cells there are, done and to do.
        work: Works on a cell; None fits it.

    Raises:
        SettingsError: For every mistake in the settings, before anything is made.
        RunError: If the database cannot be reached or written.
        Interrupted: If a signal asked to end; nothing is lost.
    """
    quiet_optuna()
    cells = plan(settings)
    _require_work(cells)
    _require_sendable(settings)
    name, folder, chosen = name_of(settings), folder_of(settings), settings.benchmark
    with RunLog(settings.log_level) as run_log:
        without = data_problems(cells)
        cells = in_order(with_problems(cells, without))
        _require_work(cells)
        study = open_benchmark(chosen, folder, name)
        _require_same_data(study, cells)
        _write_settings(settings, folder)
        run_log.attach(folder.log)
        warn_of_environment()
        study.set_user_attr(WITHOUT_DATA, without)
        put_cells_in_line(study, folder, cells, retry_failed)
        progress = Progress(study, cells)
        log.info("benchmark %s in %s", name, shown(folder.path))
        log.info("kept in %s", shown_storage(chosen, folder))
        told(progress.estimate(chosen.workers))
        for line in progress.refused():
            log.warning("%s", line)
        with interruption.afterwards():  # a job is requeued when its leaderboard is written
            try:
                _share(study, settings, cells, progress, interruption, work)
            except Interrupted as error:
                log.warning("interrupted by %s; the same command goes on with the benchmark %s", error.name, name)
                raise
            finally:
                with interruption.deferred():
                    content = write_leaderboard(study, folder, name, cells, chosen.watts)
    return Benchmark(folder.path, content)


def _share(
    study: Study,
    settings: RunSettings,
    cells: Sequence[Cell],
    progress: Progress,
    interruption: Interruption,
    work: Work | None,
) -> None:
    name, folder, chosen = name_of(settings), folder_of(settings), settings.benchmark
    if chosen.workers == 1:
        by_key = {cell.key: cell for cell in cells if cell.settings is not None}
        given = {} if work is None else {"work": work}
        cell_work = CellWork(by_key, name, True, interruption, **given)

        def ended(_: FrozenTrial) -> None:
            progress.refresh()
            write_leaderboard(study, folder, name, cells, chosen.watts)

        run_cells(study, cell_work, ended)
        return
    if nothing_in_line(study.get_trials(deepcopy=False)) is not None:
        return
    workers = min(chosen.workers, max(1, progress.left))
    share(
        study,
        workers,
        lambda number: _start(number, workers, settings),
        nothing_in_line,
        DEATHS_PER_CELL * len(cells),
        progress.refresh,
        lambda: None,
        interruption,
    )


def work_beside(settings: RunSettings, interruption: Interruption) -> None:
    """Work on cells that another process has put in line, and keep the leaderboard current.

    Args:
        settings: The settings of the benchmark.
        interruption: Handles the signals.
    """
    quiet_optuna()
    cells = plan(settings)
    name, folder, chosen = name_of(settings), folder_of(settings), settings.benchmark
    by_key = {cell.key: cell for cell in cells if cell.settings is not None}
    with RunLog("error" if settings.log_level != "debug" else "debug"):
        study = open_benchmark(chosen, folder, name)
        run_cells(
            study,
            CellWork(by_key, name, False, interruption),
            lambda _: _write_quietly(study, folder, name, cells, chosen.watts),
        )


def _write_quietly(
    study: Study, folder: BenchmarkFolder, name: str, cells: Sequence[Cell], watts: float | None
) -> None:
    """Write the leaderboard; a worker goes on where it cannot be written, since the first process tells of it."""
    try:
        write_leaderboard(study, folder, name, cells, watts)
    except OSError as error:
        log.warning("%s: the leaderboard cannot be written (%s)", shown(folder.path), error)


def _start(number: int, workers: int, settings: RunSettings) -> Process:
    sent = settings.model_dump_json(exclude_unset=True).encode()
    return start_worker(WORKER, sent, number, workers, settings.trainer.accelerator)


def _require_work(cells: Sequence[Cell]) -> None:
    """Refuse a matrix of which no cell can work."""
    if all(cell.settings is None for cell in cells):
        problems = dict.fromkeys(f"{cell.name}: {cell.problem}" for cell in cells)
        first = list(problems)[:5]
        more = len(problems) - len(first)
        raise SettingsError([*first, *([f"benchmark: {more} more cells cannot work either"] if more else [])])


def _require_same_data(study: Study, cells: Sequence[Cell]) -> None:
    """Raise DataError if cells are complete whose data set is another one now: a table of both would not compare."""
    found = statuses(study.get_trials(deepcopy=False), cells)
    sums: dict[str, str | None] = {}  # place of data → what it is now, read once for all of its cells
    for cell in cells:
        record = found[cell.key].record
        if cell.settings is None or record is None or not isinstance(record.get("md5"), str):
            continue
        data = cell.settings.data
        if cell.place not in sums:
            sums[cell.place] = fingerprint(dataset_info(data.dataset, data.synthetic), data.resolution, data.root)
        if (now := sums[cell.place]) not in (None, record["md5"]):
            raise DataError(
                f"benchmark.name: {data.dataset} is another one now (MD5 {now}) than complete cells were trained with "
                f"(MD5 {printable(record['md5'][:32])}); begin another benchmark with --benchmark.name NAME"
            )


def _require_sendable(settings: RunSettings) -> None:
    if settings.benchmark.workers == 1:
        return
    try:
        settings.model_dump_json(exclude_unset=True)
    except PydanticSerializationError as error:
        raise SettingsError(
            "benchmark.workers: callbacks and loggers that are objects stay in this process; name their classes, or "
            "use one worker"
        ) from error


def _write_settings(settings: RunSettings, folder: BenchmarkFolder) -> None:
    """Write the configuration, without secrets."""
    chosen = settings.benchmark
    storage = chosen.storage if chosen.storage in (None, "journal") else HIDDEN  # it may hold a password
    given = settings.model_dump(exclude_unset=True)
    content = json.loads(json.dumps(given, default=lambda value: type(value).__qualname__))  # objects by their names
    content["benchmark"] = {**chosen.model_dump(mode="json"), "storage": storage}
    write_atomic(folder.settings, yaml.safe_dump(redact_settings(content), sort_keys=False))
