"""What a user's type checker sees of the package."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


MISTAKES = {  # script of a user → wrong lines at its end → what is said of them
    "typed_user": ("vf.losses.focal(1)\nvf.TaskSpec(clases=3)\nvf.fitt()\n", ("arg-type", "call-arg", "attr-defined")),
    "own_parts": ("vf.register_loss(Nadam)\nNadam(psy=1.0)\n", ("type-var", "call-arg")),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> str:
    """Return what a strict mypy says of scripts, in a project of its own, which knows nothing of our configuration."""
    folder = tmp_path_factory.mktemp("typed")
    for name, (wrong, _) in MISTAKES.items():
        script = (REPOSITORY / "tests" / f"{name}.py").read_text(encoding="utf-8")
        (folder / f"{name}.py").write_text(script, encoding="utf-8")
        (folder / f"{name}_wrong.py").write_text(script + wrong, encoding="utf-8")
    options = ["--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={folder / 'cache'}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *sorted(path.name for path in folder.glob("*.py"))],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MISTAKES)
def test_a_users_script_passes_strict_mypy_and_mistakes_are_found(said, name):
    lines = said.splitlines()
    assert not [line for line in lines if line.startswith(f"{name}.py")], said
    wrong = "\n".join(line for line in lines if line.startswith(f"{name}_wrong.py"))
    for complaint in MISTAKES[name][1]:
        assert f"[{complaint}]" in wrong, said


def test_the_package_says_that_it_is_typed():
    assert (REPOSITORY / "src" / "visionforge" / "py.typed").is_file()
