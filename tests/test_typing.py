"""What a user's type checker sees of the package."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def check(script: str, folder) -> "subprocess.CompletedProcess[str]":
    """Check a script as in a project of its own, which knows nothing of our configuration."""
    (folder / "script.py").write_text(script, encoding="utf-8")
    options = ["--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={folder / 'cache'}"]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all scripts, so that what they import is checked once."""
    return tmp_path_factory.mktemp("typed")


def test_a_users_script_passes_strict_mypy(folder):
    script = (REPOSITORY / "tests" / "typed_user.py").read_text(encoding="utf-8")
    done = check(script, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    done = check(script + "vf.losses.focal(1)\nvf.TaskSpec(clases=3)\nvf.fitt()\n", folder)
    for complaint in ("arg-type", "call-arg", "attr-defined"):
        assert f"[{complaint}]" in done.stdout, done.stdout


def test_a_module_with_parts_of_ones_own_passes_strict_mypy(folder):
    script = (REPOSITORY / "tests" / "own_parts.py").read_text(encoding="utf-8")
    done = check(script, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    done = check(script + "vf.register_loss(Nadam)\nNadam(psy=1.0)\n", folder)
    for complaint in ("type-var", "call-arg"):
        assert f"[{complaint}]" in done.stdout, done.stdout


def test_the_package_says_that_it_is_typed():
    assert (REPOSITORY / "src" / "visionforge" / "py.typed").is_file()
