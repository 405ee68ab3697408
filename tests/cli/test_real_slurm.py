"""Jobs of a real SLURM, with two nodes on this host: warned, displaced, lost, and shared by workers."""

import csv
import json
import shlex
import sys

import pytest

from tests.cli.slurm_cluster import NODES, Cluster, missing
from tests.conftest import EXHAUSTIVE, flags, run_folders
from tests.runs.helpers import wait_for
from visionforge.cli.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"needs SLURM and munge: no {', '.join(missing())} here"),
]
LONG = {"data__synthetic__train": 320, "trainer__max_epochs": 40, "trainer__deterministic": "true"}


@pytest.fixture(scope="module")
def daemons(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(daemons, monkeypatch):
    for name, value in daemons.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return daemons


@pytest.fixture
def submit(cluster, capsys):
    """Submit a command, and return the number of its job."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["submit", "--json", "--cpus", "1", "--memory", "1G", *map(str, arguments)]) == 0
        return str(json.loads(capsys.readouterr().out)["job"])

    return run


def epochs(outputs) -> list[int]:
    """Return the epochs of the table of the only run."""
    (run,) = run_folders(outputs)
    path = run / "metrics.csv"
    return [int(row["epoch"]) for row in csv.DictReader(path.open())] if path.exists() else []


def record(run) -> dict:
    return json.loads((run / "run.json").read_text())


def trains(outputs, least: int = 2):
    return lambda: len(run_folders(outputs)) == 1 and len(epochs(outputs)) >= least


@pytest.mark.parametrize("nodes", [pytest.param(1, marks=EXHAUSTIVE), 2])
def test_a_training_whose_time_ends_is_requeued_and_goes_on(tmp_path, cluster, submit, nodes):
    job = submit("--nodes", nodes, "--", "fit", *flags(**LONG, trainer__default_root_dir=tmp_path / "runs"))
    wait_for(trains(tmp_path / "runs"), 120)
    cluster.ask("scancel", "--signal=USR1", job)  # what --signal sends before the time is over
    wait_for(lambda: cluster.facts(job)["Restarts"] == "1", 60)
    assert cluster.wait_until(job, "COMPLETED")["ExitCode"] == "0:0"
    assert epochs(tmp_path / "runs") == list(range(40))
    (run,) = run_folders(tmp_path / "runs")
    assert record(run)["state"] == "complete"
    log = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert "is requeued" in log
    assert "continues from" in log
    assert "Using backend config" not in log
    assert "Traceback" not in log


@EXHAUSTIVE
def test_a_training_that_is_displaced_goes_on(tmp_path, cluster, submit):
    job = submit("--nodes", 2, "--", "fit", *flags(**LONG, trainer__default_root_dir=tmp_path / "runs"))
    wait_for(trains(tmp_path / "runs"), 120)
    cluster.ask("sbatch", "--partition=urgent", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap", "sleep 5")
    wait_for(lambda: cluster.facts(job)["Restarts"] == "1", 60)
    cluster.wait_until(job, "COMPLETED")
    assert epochs(tmp_path / "runs") == list(range(40))


@EXHAUSTIVE
@pytest.mark.parametrize("lost", ["node", "process"])
def test_a_training_that_loses_one_goes_on(tmp_path, cluster, submit, lost):
    job = submit("--nodes", 2, "--", "fit", *flags(**LONG, trainer__default_root_dir=tmp_path / "runs"))
    wait_for(trains(tmp_path / "runs"), 120)
    if lost == "process":
        cluster.kill_tasks(NODES[1])
    else:
        cluster.lose_node(NODES[1])
    try:
        wait_for(lambda: cluster.facts(job)["Restarts"] == "1", 60)
    finally:
        if lost == "node":
            cluster.start_node(NODES[1])
    cluster.wait_until(job, "COMPLETED")
    assert epochs(tmp_path / "runs") == list(range(40))


@EXHAUSTIVE
def test_a_process_that_is_lost_before_a_checkpoint_ends_the_job(tmp_path, cluster, submit):
    """Else one that never fits into memory would start it for ever."""
    settings = flags(**LONG | {"data__synthetic__train": 20_000, "trainer__default_root_dir": tmp_path / "runs"})
    job = submit("--nodes", 2, "--", "fit", *settings)
    wait_for(lambda: run_folders(tmp_path / "runs"), 120)
    cluster.kill_tasks(NODES[1])
    wait_for(lambda: cluster.facts(job)["JobState"] == "FAILED", 60)
    assert cluster.facts(job)["Restarts"] == "0"


@EXHAUSTIVE
def test_seeds_are_an_array(tmp_path, cluster, submit):
    settings = flags(trainer__default_root_dir=tmp_path / "runs")
    job = submit("--", "fit", *settings, "--seeds", 2)
    for task in (0, 1):
        cluster.wait_until(f"{job}_{task}", "COMPLETED")
    assert sorted(record(run)["seeds"]["seed_everything"] for run in run_folders(tmp_path / "runs")) == [42, 43]


def test_workers_of_a_search_share_its_trials_and_are_requeued(tmp_path, cluster, submit):
    search = {"tune__preset": "quick", "tune__n_trials": 10, "tune__target": "null", "tune__study": "s"}
    more = {"data__synthetic__train": 320, "trainer__max_epochs": 6, "trainer__default_root_dir": tmp_path / "runs"}
    job = submit("--copies", 2, "--", "tune", *flags(**search, **more, tune__storage="journal"))
    trials = tmp_path / "runs" / "studies" / "s" / "trials"
    wait_for(lambda: len(list(trials.glob("[!.]*/metrics.csv"))) >= 2, 120)  # both train
    cluster.ask("scancel", "--signal=USR1", f"{job}_0")
    wait_for(lambda: cluster.facts(f"{job}_0")["Restarts"] == "1", 120)
    (log,) = (tmp_path / "logs").glob("*_0.log")
    assert "interrupted by SIGUSR1; the same command goes on" in log.read_text()
    for task in (0, 1):
        cluster.wait_until(f"{job}_{task}", "COMPLETED", 400)
    summary = tmp_path / "runs" / "studies" / "s" / "reports" / "study_summary.json"
    counts = json.loads(summary.read_text())["counts"]
    assert (counts["complete"] + counts["pruned"], counts["failed"], counts["running"]) == (10, 0, 0)


@EXHAUSTIVE
def test_a_trial_of_two_devices_starts_its_processes_in_a_job(tmp_path, cluster, submit):
    search = {"tune__preset": "quick", "tune__n_trials": 2, "tune__target": "null", "trainer__devices": 2}
    search |= {"data__synthetic__train": 320}
    job = submit("--", "tune", *flags(**search, trainer__default_root_dir=tmp_path / "runs"))
    cluster.wait_until(job, "COMPLETED", 150)
    (summary,) = (tmp_path / "runs").glob("studies/*/reports/study_summary.json")
    assert json.loads(summary.read_text())["counts"]["complete"] == 2


@pytest.mark.parametrize(
    ("tasks", "expected"), [(1, "has 1 task; submit it with"), (2, "a job of 2 tasks, and one process without srun")]
)
def test_a_job_without_srun_is_refused_at_once(tmp_path, cluster, tasks, expected):
    settings = flags(trainer__default_root_dir=tmp_path / "runs", trainer__devices=2)
    options = [f"--ntasks-per-node={tasks}", f"--ntasks={tasks}", f"--output={tmp_path}/log"]
    command = shlex.join([sys.executable, "-m", "visionforge", "fit", *settings])
    job = cluster.ask("sbatch", "--parsable", *options, "--wrap", command).strip()
    wait_for(lambda: cluster.facts(job)["JobState"] == "FAILED", 60)
    assert cluster.facts(job)["ExitCode"] == "2:0"
    log = (tmp_path / "log").read_text()
    assert expected in log
    assert not run_folders(tmp_path / "runs")
