"""The README's first command does what the README says."""

import json
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, run_folders


@pytest.mark.slow
def test_quickstart_reaches_its_accuracy(tmp_path):
    command = re.search(r"visionforge (fit --config \S+)", (REPOSITORY / "README.md").read_text())
    assert command is not None
    arguments = [*command[1].split(), "--trainer.default_root_dir", str(tmp_path / "outputs")]
    subprocess.run([sys.executable, "-m", "visionforge", *arguments], check=True, cwd=REPOSITORY)
    (run,) = run_folders(tmp_path / "outputs")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["without_tta"]["accuracy"] >= 0.98
    assert metrics["with_tta"] is None, "at 8×8 pixels no view of a digit keeps it as it is"
