"""What a study leaves in numbers: the best configuration, a summary and a spreadsheet."""

import datetime
import io
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from openpyxl import Workbook
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from visionforge.config.problems import nearest
from visionforge.errors import RunError
from visionforge.printable import printable
from visionforge.reading import UnreadableError, read_yaml
from visionforge.runs.files import within, write_atomic
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.objective import BEST_EPOCH, FOLDS
from visionforge.tuning.study import best_trials
from visionforge.tuning.trials import EPOCHS, REASON, RUN, counted, epochs_of, finished, run_of, spent_s

log = logging.getLogger(__name__)

TOP = 10
FEWEST_FOR_IMPORTANCE = 4
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trial_row(trial: FrozenTrial, names: list[str]) -> dict[str, Any]:
    """Return what the reports say of a trial."""
    values = trial.values if trial.state == TrialState.COMPLETE else None
    return {
        "trial": trial.number,
        "state": STATES[trial.state],
        **{name: None if values is None else values[index] for index, name in enumerate(names)},
        "last_value": _last_value(trial),
        "best_epoch": trial.user_attrs.get(BEST_EPOCH),
        "epochs": trained_epochs(trial) or None,
        "seconds": spent_s(trial),
        "params": trial.params,
        "reason": trial.user_attrs.get(REASON),
        "run": trial.user_attrs.get(RUN),
    }


def trained_epochs(trial: FrozenTrial) -> int:
    """Return how many epochs a trial was trained for, in all folds; of two objectives, no epoch is told of."""
    whole = trial.state == TrialState.COMPLETE and (FOLDS in trial.user_attrs or not trial.intermediate_values)
    return int(trial.user_attrs.get(EPOCHS, 0)) if whole else epochs_of(trial)


def _last_value(trial: FrozenTrial) -> float | None:
    """Return the value of the last epoch that a trial has told of; None without, or if JSON has no such number."""
    last = trial.intermediate_values.get(max(trial.intermediate_values, default=-1))
    return last if last is not None and math.isfinite(last) else None


def summary(study: Study, names: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `study_summary.json`.

    Args:
        study: The study.
        names: Names of the objectives.
        settings: The section `tune` of its settings.
    """
    trials = counted(study.get_trials(deepcopy=False))
    states = [STATES[trial.state] for trial in trials]
    best = best_trials(study)
    planned = sum(int(t.user_attrs.get(EPOCHS, 0)) for t in finished(trials) if t.state != TrialState.FAIL)
    trained = sum(trained_epochs(t) for t in finished(trials) if t.state != TrialState.FAIL)
    return {
        "study": study.study_name,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "objectives": {n: d.name.lower() for n, d in zip(names, study.directions, strict=True)},
        "counts": {state: states.count(state) for state in ("complete", "pruned", "failed", "running")},
        "epochs_saved": 1 - trained / planned if planned and len(names) == 1 else None,
        "best": trial_row(best[0], names) if best else None,
        "importances": importances(study),
        "settings": settings,
        "trials": [trial_row(trial, names) for trial in trials],
    }


def importance_evaluator(trials: int) -> PedAnovaImportanceEvaluator:
    """Return what measures importances: by the best tenth of the trials, or the best quarter of few."""
    return PedAnovaImportanceEvaluator(target_quantile=0.1 if trials >= 20 else 0.25)


def first_objective(study: Study) -> Study:
    """Return a study as one of its first objective alone."""
    if len(study.directions) == 1:
        return study
    copy = optuna.create_study(direction=study.directions[0])
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        parameters, distributions = trial.params, trial.distributions
        copy.add_trial(create_trial(value=trial.values[0], params=parameters, distributions=distributions))
    return copy


def to_rank(study: Study) -> tuple[list[FrozenTrial], list[str]]:
    """Return the completed trials, and the parameters about which they can tell something.

    Few trials tell nothing; nor does a parameter that only one of them has, or only one has not.
    """
    completed = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if len(completed) < FEWEST_FOR_IMPORTANCE or len({t.values[0] for t in completed}) < 2:
        return completed, []
    having = Counter(name for trial in completed for name in trial.params)
    return completed, [name for name, n in having.items() if n > 1 and len(completed) - n != 1]


def importances(study: Study) -> dict[str, float]:
    """Return how much every parameter matters for being among the best trials, largest first; they add up to 1.

    Computed by Optuna's PED-ANOVA (Watanabe et al., 2023, arXiv:2304.10255); nothing with too few trials.
    """
    completed, names = to_rank(study)
    if not names:
        return {}
    try:
        single = first_objective(study)
        found = optuna.importance.get_param_importances(
            single, evaluator=importance_evaluator(len(completed)), params=names
        )
        return dict(found)
    except (ValueError, RuntimeError) as error:  # no parameter that all trials share
        log.debug("no importances (%s)", error)
        return {}


# --- tables


def write_tables(study: Study, folder: StudyFolder, names: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Write the best configuration, the summary and the spreadsheet; return the summary."""
    within(folder.path, folder.reports.name)
    content = summary(study, names, settings)
    folder.reports.mkdir(parents=True, exist_ok=True)
    write_atomic(folder.reports / "study_summary.json", json.dumps(content, indent=2) + "\n")
    best = best_trials(study)
    if best:
        write_best_config(best[0], folder, names)
        _write_spreadsheet(best[:TOP], folder, names)
    return content


def write_best_config(trial: FrozenTrial, folder: StudyFolder, names: list[str]) -> None:
    """Write the configuration of the best trial as a plain file for `fit`, with the full number of epochs."""
    run = run_of(trial, folder)
    if run is None or not run.config.is_file():
        log.warning("trial %d: its run folder is gone, so its configuration is not written", trial.number)
        return
    try:
        config = read_yaml(run.config)
        full = read_yaml(folder.settings)["trainer"]["max_epochs"]
        epochs, seed = config["trainer"]["max_epochs"], config["seed_everything"]
        config["trainer"] |= {"max_epochs": full, "default_root_dir": None}
        if folds_of(trial):
            config["data"]["fold"] = None
    except (OSError, UnreadableError, LookupError, TypeError) as error:
        log.warning("trial %d: its configuration cannot be read (%s), so it is not written", trial.number, error)
        return
    values = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trial.values, strict=True))
    heading = (
        f"# Best of the study {folder.path.name}: trial {trial.number}, {values}\n"
        f"# found with --seed_everything {seed} --trainer.max_epochs {epochs}\n"
    )
    write_atomic(folder.reports / "best_config.yaml", heading + yaml.safe_dump(config, sort_keys=False))


def folds_of(trial: FrozenTrial) -> int:
    """Return how many folds a trial has trained; 0 if it has trained one network."""
    found = trial.user_attrs.get("folds")
    return len(found) if isinstance(found, list) else 0


def train_command(trial: FrozenTrial, folder: StudyFolder, path: Path) -> str:
    """Return the command that trains the best trial at full length.

    Args:
        trial: The trial.
        folder: The study's folder.
        path: The configuration, as it is shown.
    """
    folds = folds_of(trial)
    if not folds:
        return f"visionforge fit --config {path}"
    data = read_yaml(folder.settings).get("data", {})
    return f"visionforge fit --config {path} --folds {data.get('folds', folds) if isinstance(data, Mapping) else folds}"


def _write_spreadsheet(trials: list[FrozenTrial], folder: StudyFolder, names: list[str]) -> None:
    parameters = sorted({name for trial in trials for name in trial.params})
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Top trials"
    headings = ["rank", "trial", *names, "best epoch", "minutes", *parameters, "run folder"]
    sheet.append([_plain(text) for text in headings])
    for rank, trial in enumerate(trials, start=1):
        seconds = spent_s(trial)
        row: list[Any] = [rank, trial.number, *trial.values, trial.user_attrs.get(BEST_EPOCH)]
        row += [None if seconds is None else seconds / 60, *(trial.params.get(name) for name in parameters)]
        sheet.append([_plain(value) for value in (*row, trial.user_attrs.get(RUN))])
    for cell in (cell for line in sheet for cell in line):
        if isinstance(cell.value, str):
            cell.data_type = "s"  # never a formula
    for cell in sheet[1]:
        cell.font = Font(bold=True, color="FFFFFF")
        cell.fill = PatternFill("solid", fgColor="2F4B7C")
        cell.alignment = Alignment(wrap_text=True, vertical="center")
    for index, heading in enumerate(headings, start=1):
        letter = get_column_letter(index)
        widest = max(len(text_of(sheet.cell(number, index).value)) for number in range(2, sheet.max_row + 1))
        sheet.column_dimensions[letter].width = min(60, max(widest, *(len(part) for part in heading.split("."))) + 3)
        for number in range(2, sheet.max_row + 1):
            cell = sheet.cell(number, index)
            if isinstance(cell.value, float):
                small = cell.value != 0 and abs(cell.value) < 1e-3
                cell.number_format = "0.00E+00" if small else "0.00" if heading == "minutes" else "0.0000"
    for cell in sheet[2]:
        cell.fill = PatternFill("solid", fgColor="E3ECF7")  # the best
    sheet.freeze_panes = "C2"
    sheet.auto_filter.ref = sheet.dimensions
    buffer = io.BytesIO()
    book.save(buffer)
    write_atomic(folder.reports / "top_10_trials.xlsx", buffer.getvalue())


def _plain(value: Any) -> Any:
    """Return what a cell can hold: numbers stay, all else is text without control characters."""
    return value if value is None or isinstance(value, bool | int | float) else printable(value)


def text_of(value: Any) -> str:
    """Return a value as tables show it."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def short_names(paths: list[str]) -> dict[str, str]:
    """Return the last part of every dotted name, or as many parts as tell it from the others."""
    result: dict[str, str] = {}
    for path in paths:
        parts = path.split(".")
        for count in range(1, len(parts) + 1):
            short = ".".join(parts[-count:])
            if sum(other.endswith(f".{short}") or other == short for other in paths) == 1:
                break
        result[path] = short
    return result


def find_study(text: str, studies: Path, setting: str = "study") -> StudyFolder:
    """Return the folder of a study, given by path or by name.

    Args:
        text: The path, or the name.
        studies: Folder of studies that are named.
        setting: What names it, for messages.

    Raises:
        RunError: If there is none.
    """
    for path in (Path(text).expanduser(), studies / text):
        if (path / "config.yaml").is_file():
            return StudyFolder(path)
    known = [path.parent.name for path in sorted(studies.glob("*/config.yaml"))]
    close = nearest(text, known) or known
    hint = f"; nearest: {', '.join(close)}" if close else ""
    raise RunError(f"{setting}: {text} is no study: a folder below {studies} with a config.yaml{hint}")
