"""Of folders that killed processes left, what proves to be ours is removed, and nothing else is."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from visionforge.errors import RunError
from visionforge.runs.staging import MARK, staging

KILLED = """
import os, signal, sys
from pathlib import Path
from visionforge.runs.staging import staging
with staging(Path(sys.argv[1]), lambda path: True) as files:
    (files / "a.txt").write_text("ours")
    (files / "b.txt").write_text("ours, too")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def ours(path: Path) -> bool:
    return path.read_text().startswith("ours")


@pytest.fixture
def left(tmp_path) -> Path:
    """A folder that a killed process left beside `masks`."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "masks")], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    (found,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert sorted(path.name for path in (found / "files").iterdir()) == ["a.txt", "b.txt"]
    return found


def stage(folder: Path) -> None:
    with staging(folder / "masks", ours) as files:
        assert list(files.iterdir()) == []
        (files / "new.txt").write_text("ours")


def test_a_folder_is_there_for_a_block_only(tmp_path):
    stage(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), staging(tmp_path / "masks", ours) as files:
        assert files.parent.parent == tmp_path
        (files / "a.txt").write_text("ours")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(left, tmp_path):
    (tmp_path / "theirs.txt").write_text("ours")
    stage(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]


def test_what_is_left_for_another_folder_is_not_looked_at(left, tmp_path):
    with staging(tmp_path / "other", ours):
        pass
    assert sorted(path.name for path in (left / "files").iterdir()) == ["a.txt", "b.txt"]


def test_files_that_are_not_ours_stay_where_they_are(left, tmp_path):
    (left / "files" / "b.txt").write_text("mine")
    (left / "files" / "folder").mkdir()
    (tmp_path / "far.txt").write_text("ours")
    (left / "files" / "link.txt").symlink_to(tmp_path / "far.txt")
    stage(tmp_path)
    assert sorted(path.name for path in (left / "files").iterdir()) == ["b.txt", "folder", "link.txt"]
    assert (tmp_path / "far.txt").read_text() == "ours"
    assert (left / MARK).exists()


def test_a_file_beside_ours_keeps_the_folder(left, tmp_path):
    (left / "notes.txt").write_text("ours")
    stage(tmp_path)
    assert sorted(path.name for path in left.iterdir()) == [MARK, "notes.txt"]


@pytest.mark.parametrize(
    "kind", ["copy", "unmarked", "forged", "no JSON", "link", "files are a link", "marked by a link"]
)
def test_a_folder_that_does_not_prove_to_be_ours_stays(left, tmp_path, kind):
    folder = tmp_path / ".masks.backup01"
    match kind:
        case "copy":
            shutil.copytree(left, folder)
        case "link":
            (tmp_path / "mine").mkdir()
            shutil.copytree(left / "files", tmp_path / "mine" / "files")
            (tmp_path / "mine" / MARK).write_text(marked(folder))
            folder.symlink_to(tmp_path / "mine")
        case _:
            shutil.copytree(left, folder)
            (folder / MARK).unlink()
    match kind:
        case "forged":
            (folder / MARK).write_text(json.dumps({**json.loads(marked(folder)), "by": "somebody"}))
        case "no JSON":
            (folder / MARK).write_text("{" * 200)
        case "files are a link":
            (folder / MARK).write_text(marked(folder))
            (folder / "files").rename(tmp_path / "mine")
            (folder / "files").symlink_to(tmp_path / "mine")
        case "marked by a link":
            (tmp_path / "mark").write_text(marked(folder))
            (folder / MARK).symlink_to(tmp_path / "mark")
    before = sorted((folder / "files").iterdir())
    stage(tmp_path)
    assert not left.exists()
    assert sorted((folder / "files").iterdir()) == before
    assert len(before) == 2


def marked(folder: Path) -> str:
    """Return the mark of a folder that is ours."""
    return json.dumps({"folder": folder.name, "for": "masks", "by": "visionforge"})


def test_two_do_not_write_to_the_same_place_at_once(tmp_path):
    with staging(tmp_path / "masks", ours) as files:
        (files / "a.txt").write_text("ours")
        with pytest.raises(RunError, match="masks: in use by process"), staging(tmp_path / "masks", ours):
            pass
        with staging(tmp_path / "other", ours):
            pass
        assert (files / "a.txt").exists()
