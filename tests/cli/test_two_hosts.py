"""Two hosts, for which network namespaces stand: one training of both, and one search in a database of the first."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import EXHAUSTIVE, flags, run_folders
from tests.runs.helpers import readable_folder, wait_for

pytestmark = pytest.mark.slow
NETWORK = "10.213.7"
SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Host:
    """A namespace with an address of its own."""

    def __init__(self, name: str, number: int):
        self.name, self.address, self.link = name, f"{NETWORK}.{number}", f"vf{number}{os.getpid() % 10_000}"

    def start(self, *command: object, environment=(), **options) -> subprocess.Popen:
        given = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.link, **dict(environment)}
        arguments = ["ip", "netns", "exec", self.name, *map(str, command)]
        return subprocess.Popen(arguments, env=given, stderr=subprocess.PIPE, text=True, **options)

    def visionforge(self, *arguments: object, **environment: object) -> subprocess.Popen:
        texts = {name: str(value) for name, value in environment.items()}
        return self.start(sys.executable, "-m", "visionforge", *arguments, environment=texts)


@pytest.fixture
def hosts():
    """Two of them, joined by a cable."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need the program ip, and root")
    pair = [Host(f"visionforge-{number}-{os.getpid()}", number) for number in (1, 2)]
    try:
        try:
            for host in pair:
                ip("netns", "add", host.name)
            ip("link", "add", pair[0].link, "type", "veth", "peer", "name", pair[1].link)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel has no network namespaces for us ({error.stderr.decode().strip()})")
        for host in pair:
            ip("link", "set", host.link, "netns", host.name)
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.link)
            for link in (host.link, "lo"):
                ip("-n", host.name, "link", "set", link, "up")
        yield pair
    finally:
        for host in pair:
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True, check=False)


def ended(processes, within=240.0):
    said = [process.communicate(timeout=within)[1] for process in processes]
    return [process.returncode for process in processes], "".join(said)


def nodes(hosts, *arguments):
    """Start a process on each host, as a launcher does."""
    common = {"WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "TORCHELASTIC_RUN_ID": "none"}
    common |= {"MASTER_ADDR": hosts[0].address, "MASTER_PORT": 29517}
    return [
        host.visionforge("fit", *arguments, RANK=rank, GROUP_RANK=rank, **common) for rank, host in enumerate(hosts)
    ]


def test_a_training_of_two_hosts_is_that_of_one(hosts, tmp_path):
    settings = {"trainer__deterministic": "true", "data__global_batch_size": 32, "data__batch_size": 128}
    two = flags(**settings, trainer__default_root_dir=tmp_path / "two", trainer__num_nodes=2, trainer__devices=1)
    statuses, said = ended(nodes(hosts, *two, "--trainer.strategy", "ddp"))
    assert statuses == [0, 0], said[-3000:]
    here = flags(**settings, trainer__default_root_dir=tmp_path / "one", trainer__devices=2)
    one = subprocess.run(
        [sys.executable, "-m", "visionforge", "fit", *here, "--trainer.strategy", "ddp"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert one.returncode == 0, one.stderr[-3000:]
    found = []
    for name in ("two", "one"):
        (run,) = run_folders(tmp_path / name)
        found.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@EXHAUSTIVE
def test_a_host_that_is_lost_ends_the_other_and_the_run_goes_on(hosts, tmp_path):
    long = flags(
        trainer__default_root_dir=tmp_path, trainer__num_nodes=2, trainer__devices=1, trainer__max_epochs=30,
        data__synthetic__train=320,
    )  # fmt: skip
    processes = nodes(hosts, *long, "--trainer.strategy", "ddp")

    def epochs():
        return [
            json.loads((run / "run.json").read_text())["progress"].get("epochs", 0) for run in run_folders(tmp_path)
        ]

    wait_for(lambda: any(done >= 1 for done in epochs()), 120)
    processes[1].send_signal(signal.SIGKILL)
    statuses, said = ended(processes)
    assert statuses == [1, -signal.SIGKILL]
    assert "error: process 1 of 2 was lost" in said
    statuses, said = ended(nodes(hosts, *long, "--trainer.strategy", "ddp", "--resume", "auto"))
    assert statuses == [0, 0], said[-3000:]
    assert epochs() == [30]


@pytest.fixture
def database(hosts):
    """A PostgreSQL server on the first host."""
    psycopg2 = pytest.importorskip("psycopg2")
    programs = SERVERS[-1] if SERVERS else Path(shutil.which("initdb") or "/nowhere").parent
    if not (programs / "initdb").is_file():
        pytest.skip("no PostgreSQL server is installed")
    with readable_folder() as folder:
        shutil.chown(folder, "postgres")
        data, start = folder / "data", ["-A", "trust", "-U", "vf"]
        subprocess.run(
            [programs / "initdb", "-D", data, *start], user="postgres", check=True, stdout=subprocess.DEVNULL
        )
        with (data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {NETWORK}.0/24 trust\n")
        options = ["-k", folder, "-c", f"listen_addresses={hosts[0].address}"]
        process = hosts[0].start(
            "setpriv", "--reuid", "postgres", "--clear-groups", programs / "postgres", "-D", data, *options
        )

        def ready():
            try:
                psycopg2.connect(host=str(folder), user="vf", dbname="postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        try:
            wait_for(ready)
            yield f"postgresql://vf@{hosts[0].address}/postgres", f"postgresql+psycopg2://vf@/postgres?host={folder}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def test_workers_of_two_hosts_join_and_leave_a_search(hosts, database, tmp_path):
    import optuna

    from visionforge.tuning.trials import counted

    address, here = database
    search = {"tune__preset": "quick", "tune__n_trials": 24, "tune__target": "null", "tune__study": "s"}

    def start(host, folder):
        settings = flags(**search, tune__storage=address, trainer__default_root_dir=tmp_path / folder)
        return host.visionforge("tune", *settings, "--tune.heartbeat_seconds", "2")

    def trials():
        try:
            return optuna.load_study(study_name="s", storage=here).trials
        except (KeyError, optuna.exceptions.StorageInternalError):
            return []

    first, second = start(hosts[0], "one"), start(hosts[1], "two")
    owners = lambda: {trial.user_attrs["owner"]["pid"] for trial in trials() if "owner" in trial.user_attrs}  # noqa: E731
    wait_for(lambda: len(owners()) == 2, 120)
    second.send_signal(signal.SIGKILL)  # ip has become the process that it was to start
    second.communicate()
    time.sleep(1)
    third = start(hosts[1], "three")
    statuses, said = ended([first, third])
    assert statuses == [0, 0], said[-3000:]
    done = [trial for trial in counted(trials()) if trial.state.is_finished()]
    assert len(done) == 24
    assert len(owners()) == 3
    assert (tmp_path / "one" / "studies" / "s" / "index.html").is_file()
    assert (tmp_path / "three" / "studies" / "s" / "index.html").is_file()
