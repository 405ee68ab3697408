"""Run folders without a training, and processes that hold them."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from visionforge.runs.config_hash import digest
from visionforge.runs.session import ActiveRun

NOBODY = 65534  # the user without rights on Linux
CONFIG = {"seed_everything": 42, "data": {"dataset": "d"}, "model": {"backbone": {"name": "m"}}, "trainer": {}}


def create(outputs: Path, **options) -> ActiveRun:
    """Make a run folder of made-up settings."""
    return ActiveRun.create(outputs, CONFIG, digest(CONFIG), **options)


def wait_for(condition, seconds: float = 30.0):
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def without_rights():
    """Act as the user nobody, where the tests run as root, who may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextlib.contextmanager
def readable_folder():
    """Make a folder that everybody may look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """Mount a small tmpfs at a new folder, where this machine lets us; skip the test elsewhere."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def python(code: str, *arguments: object, **options):
    """Run a program beside the test; it says `ready` when it is, and is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, **options
    )
    try:
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        process.kill()
        process.wait()


HOLD_RUN = """
import sys, time
from pathlib import Path
from tests.runs.helpers import create
run = create(Path(sys.argv[1]))
print("ready", flush=True)
time.sleep(100)
"""
