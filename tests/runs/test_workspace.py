"""Names of run folders, room for them, and files that appear whole or not at all."""

import datetime

import pytest

from visionforge.errors import RunError
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import require_space, run_name


def test_name():
    name = run_name("breastmnist", "timm/vit", "a3f7c2")
    assert name == f"{datetime.date.today():%Y%m%d}_breastmnist_timm-vit_a3f7c2"


def test_missing_space_is_said_with_figures(tmp_path):
    require_space(tmp_path, 1)
    with pytest.raises(RunError, match=r"no disk space: .* MB free"):
        require_space(tmp_path, 1 << 60)


def test_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path):
    write_atomic(tmp_path / "deep" / "a.txt", "one")
    write_atomic(tmp_path / "deep" / "a.txt", "two")
    assert (tmp_path / "deep" / "a.txt").read_text() == "two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_failed_atomic_write_keeps_the_old_file(tmp_path):
    write_atomic(tmp_path / "a.txt", "one")
    with pytest.raises(TypeError):
        write_atomic(tmp_path / "a.txt", None)  # type: ignore[arg-type]
    assert (tmp_path / "a.txt").read_text() == "one"
    assert len(list(tmp_path.glob("*a.txt*"))) == 1
