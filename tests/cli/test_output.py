"""What becomes of a run or a command does not depend on whether anybody reads its output."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, flags, run_folders

FULL = Path("/dev/full")
COMMAND = f"{shlex.quote(sys.executable)} -m visionforge"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in the working folder; `vf` is the command, `$STATUS` its exit status inside a pipeline."""
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), **environment}
    line = line.replace("vf ", f"{COMMAND} ") + '; exit "${PIPESTATUS[0]}"'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=variables)


@pytest.mark.parametrize(
    ("command", "end"),
    [  # each way with a table or JSON, and the help, which is written before anything else
        ("runs list", "| true"),
        ("datasets list --json", ">&-"),
        ("runs list", "2>&-"),
        ("datasets list --json", "<&- >&- 2>&-"),
        ("--help", "| true"),
        ("--help", "<&- >&- 2>&-"),
    ],
)
def test_output_that_nobody_reads(command, end):
    done = shell(f"vf {command} {end}")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["datasets list", "models list --json", "--help", "test --help"])
def test_output_that_cannot_be_written(command):
    done = shell(f"vf {command} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written (no space left on device)\n"


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("end", [">&- 2>&-", "> /dev/full 2> /dev/full", "2>&-", "2>&1 | true"])
def test_mistake_stays_a_mistake(end):
    done = shell(f"vf runs show none {end}")
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stdout + done.stderr


@pytest.mark.slow
def test_characters_that_the_terminal_does_not_have():
    done = shell("vf doctor", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    assert "\\u2713" in done.stdout  # a tick


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", ["2>&1 | head -n 1", ">&- 2>&-", "--trainer.enable_progress_bar true > /dev/full 2> /dev/full"]
)
def test_training_that_nobody_watches(tmp_path, end):
    arguments = shlex.join(flags(trainer__default_root_dir=tmp_path / "outputs", trainer__max_epochs=1))
    done = shell(f"vf fit {arguments} {end}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stdout + done.stderr
    assert "BrokenPipe" not in done.stdout + done.stderr
    (run,) = run_folders(tmp_path / "outputs")
    assert json.loads((run / "run.json").read_text())["state"] == "complete"
    assert (run / "metrics.json").is_file()
    assert "Traceback" not in (run / "run.log").read_text()


def test_files_do_not_take_the_place_of_a_closed_output(tmp_path):
    """Where standard output is closed, the next file that is opened would be taken for it, and written into."""
    code = (
        "import os, sys; from visionforge.cli import main as front\n"
        "def opens(arguments):\n"
        "    number = os.open('file', os.O_WRONLY | os.O_CREAT)\n"
        "    os.system('echo noise'); os.system('echo noise >&2')\n"
        "    return 0 if number > 2 else 7\n"
        "from visionforge.cli.command import Command\n"
        "front.COMMANDS['models'] = Command('models', '', opens, 0); sys.exit(front.main(['models']))\n"
    )
    (tmp_path / "opens.py").write_text(code)
    done = shell(f"{shlex.quote(sys.executable)} opens.py >&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


def test_log_tells_of_no_choice_that_was_left_open(quick_run):
    assert "was not set" not in (quick_run / "run.log").read_text()
