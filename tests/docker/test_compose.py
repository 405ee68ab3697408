"""Two workers as compose.yaml starts them, on one server that asks for the password."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import flags
from tests.docker.compose import COMPOSE, interpolated
from tests.runs.helpers import readable_folder, wait_for

pytestmark = pytest.mark.slow

PASSWORD = secrets.token_hex(12)
TRIALS = 5
QUICK = {"tune__preset": "quick", "tune__n_trials": TRIALS, "tune__target": "null", "tune__epochs": 1}


@pytest.fixture(scope="module")
def server():
    """The address, HOST:PORT, of a server of our own with compose's user and database."""
    psycopg2 = pytest.importorskip("psycopg2")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    programs = found[-1] if found else Path(shutil.which("initdb") or "/nowhere").parent
    if not (programs / "initdb").is_file():
        pytest.skip("no PostgreSQL server is installed")
    given = interpolated(COMPOSE[0], POSTGRES_PASSWORD=PASSWORD)["services"]["database"]["environment"]
    name, database = given["POSTGRES_USER"], given["POSTGRES_DB"]
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with readable_folder() as folder:
        if user:
            shutil.chown(folder, user)
        (folder / "password").write_text(given["POSTGRES_PASSWORD"])
        make = [programs / "initdb", "-D", folder / "data", "-A", "scram-sha-256", "-U", name]
        subprocess.run([*make, "--pwfile", folder / "password"], user=user, check=True, stdout=subprocess.DEVNULL)
        options = ["-k", folder, "-c", "listen_addresses=127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", *options], user=user, stderr=subprocess.DEVNULL
        )

        def connect():
            place = {"host": "127.0.0.1", "port": port, "user": name, "password": given["POSTGRES_PASSWORD"]}
            return psycopg2.connect(**place, dbname="postgres")

        def ready():
            try:
                connect().close()
            except psycopg2.OperationalError:
                return False
            return True

        try:
            wait_for(ready)
            connection = connect()
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {database}")
            connection.close()
            yield f"127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown, which does not wait for connections
            process.wait(30)


def worker(server: str, outputs: Path, password: str = PASSWORD) -> "subprocess.Popen[str]":
    """Start a worker as its container does, on images that need no download."""
    service = interpolated(COMPOSE[0], POSTGRES_PASSWORD=password)["services"]["tune"]
    command = [word.replace("@database/", f"@{server}/") for word in service["command"]]
    quick = flags(**QUICK)
    environment = {**os.environ, **service["environment"], "VISIONFORGE_OUTPUTS": str(outputs)}
    return subprocess.Popen(
        [sys.executable, "-m", "visionforge", *command, *quick],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_wrong_password_is_one_line(server, tmp_path):
    _, said = (process := worker(server, tmp_path, "wrong")).communicate()
    assert process.returncode == 2
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "tune.storage" in line
    assert "Traceback" not in said


def test_workers_share_the_trials_and_keep_the_password(server, tmp_path):
    import optuna

    workers = [worker(server, tmp_path) for _ in range(2)]
    said = ["".join(process.communicate()) for process in workers]
    assert [process.returncode for process in workers] == [0, 0], said
    address = f"postgresql+psycopg2://visionforge:{PASSWORD}@{server}/visionforge"
    study = optuna.load_study(study_name="shared", storage=address)
    counted = [trial for trial in study.trials if not trial.user_attrs.get("surplus")]
    assert len(counted) == TRIALS
    assert len({trial.user_attrs["owner"]["pid"] for trial in counted}) == 2, "one of them did it all"
    assert (tmp_path / "studies" / "shared" / "reports" / "study_summary.json").is_file()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in "".join(said)
