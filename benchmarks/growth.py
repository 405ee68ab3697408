"""What grows with the past: runs in a folder, trials of a study, epochs of a training.

``python benchmarks/growth.py --counts 10 100 1000 10000`` prints a Markdown table of seconds, the median of a few
repetitions. Runs and trials are made up; what is timed are the functions that the commands call.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import yaml
from optuna.trial import create_trial

from visionforge.config.schema import RunSettings
from visionforge.engine.resume import complete_run
from visionforge.runs.config_hash import digest
from visionforge.runs.query import run_rows
from visionforge.runs.session import ActiveRun
from visionforge.training.epoch_log import EpochLog
from visionforge.tuning.figures import write_figures
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.report import write_tables

RANGES = {
    "model.optimizer.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
    "model.optimizer.weight_decay": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True),
    "data.batch_size": optuna.distributions.CategoricalDistribution((16, 32, 48, 64)),
    "model.backbone.dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
}


def seconds(work: Callable[[], object], repetitions: int = 3) -> float:
    """Return the median of a few times, after one that is not counted."""
    work()
    found = []
    for _ in range(repetitions):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def runs(folder: Path, count: int) -> dict[str, float]:
    """Return what is done with a folder of so many complete runs."""
    config = RunSettings().model_dump(mode="json")
    first = ActiveRun.create(folder, config, digest(config))
    first.finish("complete")
    (first.workspace.path / "metrics.json").write_text(json.dumps({"without_tta": {"accuracy": 0.9, "auc": 0.95}}))
    manifest = json.loads(first.workspace.manifest.read_text())
    for seed in range(1, count):
        one = {**config, "seed_everything": seed + 1000}
        name = f"20260101_bloodmnist_resnet18_{digest(one)}-{seed}"  # six digits are few for ten thousand runs
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(yaml.dump(one, Dumper=yaml.CSafeDumper))
        (folder / name / "run.json").write_text(json.dumps({**manifest, "run": name, "hash": digest(one)}))
    new = {**config, "seed_everything": 7}

    def make() -> None:
        ActiveRun.create(folder, new, digest(new)).discard()

    assert complete_run(config, folder) is not None
    return {
        "list the runs of a folder": seconds(lambda: run_rows(folder)),
        "find the complete run of a configuration": seconds(lambda: complete_run(config, folder)),
        "make a run folder": seconds(make),
    }


def study(folder: Path, count: int) -> dict[str, float]:
    """Return what is done with a study of so many complete trials, in SQLite."""
    place = StudyFolder(folder / "study")
    place.database.parent.mkdir(parents=True)
    url, rng = f"sqlite:///{place.database}", np.random.default_rng(0)
    made = optuna.create_study(study_name="study", storage=url, direction="maximize")

    def values() -> dict[str, object]:
        drawn = {
            name: float(np.exp(rng.uniform(np.log(d.low), np.log(d.high))) if d.log else rng.uniform(d.low, d.high))
            for name, d in RANGES.items()
            if isinstance(d, optuna.distributions.FloatDistribution)
        }
        return {**drawn, "data.batch_size": int(rng.choice((16, 32, 48, 64)))}

    made.add_trials(
        create_trial(params=values(), distributions=RANGES, value=rng.uniform(0.5, 1)) for _ in range(count)
    )

    def opened() -> optuna.Study:
        found = optuna.load_study(study_name="study", storage=url, sampler=optuna.samplers.TPESampler(seed=1))
        found.get_trials(deepcopy=False)
        return found

    at_work = opened()
    logging.disable(logging.WARNING)  # these trials have no run folders
    content = write_tables(at_work, place, ["val/auc"], {})
    found = {
        "open a study": seconds(opened, 1),
        "tables of a study": seconds(lambda: write_tables(at_work, place, ["val/auc"], {}), 1),
        "page and pictures of a study": seconds(lambda: write_figures(at_work, place, content), 1),
        "propose a trial (TPE)": seconds(lambda: at_work.tell(at_work.ask(RANGES), 0.5)),
    }
    found["its page, MB"] = (place.path / "index.html").stat().st_size / 1e6
    return found


def epochs(folder: Path, count: int) -> dict[str, float]:
    """Return what an epoch costs that comes after so many."""
    values = {"val/loss": 0.3, "val/accuracy": 0.9, "val/auc": 0.95}
    train = {"train/loss": 0.2, "train/accuracy": 0.9, "lr": 0.01}
    lines = "".join(f"{epoch},0.2,0.9,0.3,0.9,0.95,0.01,1\n" for epoch in range(count))
    (folder / "metrics.csv").write_text(
        "epoch,train/loss,train/accuracy,val/loss,val/accuracy,val/auc,lr,seconds\n" + lines
    )
    rows, place = EpochLog(folder / "metrics.csv"), iter(range(count, count + 100))

    def log() -> None:
        epoch = next(place)
        rows.log_metrics({"epoch": epoch, **values})
        rows.finish(epoch, train)

    return {"write an epoch's row": seconds(log, 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000])
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = []
    for count in options.counts:
        with tempfile.TemporaryDirectory() as text:
            measured: dict[str, float] = {}
            for number, part in enumerate((runs, study, epochs)):
                folder = Path(text) / str(number)
                folder.mkdir()
                measured |= part(folder, count)
            found.append(measured)
    print(f"| seconds, after so many | {' | '.join(f'{count:,}' for count in options.counts)} |")
    print(f"|---|{'---|' * len(found)}")
    for name in found[0]:
        print(f"| {name} | {' | '.join(f'{each[name]:.3g}' for each in found)} |")


if __name__ == "__main__":
    main()
