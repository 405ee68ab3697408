"""Run folders are new, isolated, and gone again if nothing was trained."""

import datetime
import os

import pytest

from visionforge.errors import RunError
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import create_workspace, require_space

NOBODY = 65534  # the user without rights on Linux


def test_name(tmp_path):
    workspace = create_workspace(tmp_path / "outputs", "breastmnist", "timm/vit", "a3f7c2")
    assert workspace.path.name == f"{datetime.date.today():%Y%m%d}_breastmnist_timm-vit_a3f7c2"


def test_same_settings_again_get_their_own_folder(tmp_path):
    names = [create_workspace(tmp_path, "d", "m", "abcdef").path.name[9:] for _ in range(3)]
    assert names == ["d_m_abcdef", "d_m_abcdef-2", "d_m_abcdef-3"]


def test_discard_keeps_what_was_trained(tmp_path):
    outputs = tmp_path / "outputs"
    trained = create_workspace(outputs, "d", "m", "abcdef")
    write_atomic(trained.checkpoints / "last.ckpt", b"x")
    failed = create_workspace(outputs, "d", "m", "abcdef")
    assert not trained.discard_unless_trained()
    assert failed.discard_unless_trained()
    assert [path.name for path in outputs.iterdir()] == [trained.path.name]


def test_discard_removes_the_outputs_folder_that_it_made(tmp_path):
    create_workspace(tmp_path / "outputs", "d", "m", "abcdef").discard_unless_trained()
    assert not (tmp_path / "outputs").exists()


def test_outputs_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("")
    with pytest.raises(RunError, match="no run folder can be made here"):
        create_workspace(tmp_path / "outputs", "d", "m", "abcdef")


def test_outputs_without_permission_is_one_line(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    root = os.geteuid() == 0
    try:
        if root:  # who may write everywhere
            os.seteuid(NOBODY)
        with pytest.raises(RunError, match=r"permission denied.*to a folder that you may write to"):
            create_workspace(folder / "outputs", "d", "m", "abcdef")
    finally:
        if root:
            os.seteuid(0)


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
