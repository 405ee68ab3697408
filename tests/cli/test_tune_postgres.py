"""Two machines on one study: two commands that share nothing but a PostgreSQL server."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import EXHAUSTIVE, flags
from tests.runs.helpers import readable_folder, wait_for

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
SEARCH = {
    "tune__preset": "quick",
    "tune__n_trials": 7,
    "tune__target": "null",
    "tune__study": "s",
    "trainer__deterministic": "true",
}


@pytest.fixture
def server():
    """A server of our own on a socket in a temporary folder."""
    psycopg2 = pytest.importorskip("psycopg2")
    programs = SERVERS[-1] if SERVERS else Path(shutil.which("initdb") or "/nowhere").parent
    if not (programs / "initdb").is_file():
        pytest.skip("no PostgreSQL server is installed")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    with readable_folder() as folder:
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-A", "trust", "-U", "vf"],
            user=user,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        options = ["-k", folder, "-c", "listen_addresses="]
        process = subprocess.Popen([programs / "postgres", "-D", data, *options], user=user, stderr=subprocess.DEVNULL)
        try:

            def ready():
                try:
                    psycopg2.connect(host=str(folder), user="vf", dbname="postgres").close()
                except psycopg2.OperationalError:
                    return False
                return True

            wait_for(ready)
            yield f"postgresql+psycopg2://vf@/postgres?host={folder}"
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown, which does not wait for the test's own connections
            process.wait(30)


@EXHAUSTIVE  # test_two_hosts.py has it across a network, where the kernel lets it
@pytest.mark.slow
def test_two_commands_share_a_study_and_the_number_is_exact(server, tmp_path):
    import optuna

    from visionforge.tuning.trials import counted

    def start(machine):
        settings = flags(**SEARCH, tune__storage=server, trainer__default_root_dir=tmp_path / machine)
        return subprocess.Popen(
            [sys.executable, "-m", "visionforge", "tune", *settings], stderr=subprocess.PIPE, text=True
        )

    processes = [start("one"), start("two")]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    trials = [t for t in counted(optuna.load_study(study_name="s", storage=server).trials) if t.state.is_finished()]
    assert len(trials) == 7
    assert len({trial.user_attrs["owner"]["pid"] for trial in trials}) == 2
    for machine in ("one", "two"):
        assert (tmp_path / machine / "studies" / "s" / "index.html").is_file()
        assert "vf@" not in (tmp_path / machine / "studies" / "s" / "config.yaml").read_text()
