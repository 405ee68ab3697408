"""A command removes only what it can prove it wrote; whatever else lies in a folder stays, also after a failure."""

import json
import os

import pytest

from visionforge.errors import RunError, SettingsError
from visionforge.runs.locks import held
from visionforge.runs.owned_files import OwnedFolder, described


def listed(description):
    return {entry["file"]: entry["sha256"] for entry in json.loads(description)["files"]}


def owned(folder):
    return OwnedFolder(folder, "list.json", listed, r"\w+\.bin")


def write(folder, files, overwrite=False, more=()):
    with owned(folder).writing(overwrite) as staged:
        for name, text in files.items():
            (staged / name).write_text(text)
        entries = [described(path) for path in sorted(staged.iterdir())]
        (staged / "list.json").write_text(json.dumps({"files": [*entries, *more]}))


def contents(folder):
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file() and path.name != "list.json"}


def test_files_of_an_earlier_call_are_replaced_or_removed_and_nothing_else(tmp_path):
    folder = tmp_path / "out"
    write(folder, {"a.bin": "1", "b.bin": "1", "c.bin": "1"})
    (folder / "thesis").mkdir()
    (folder / "thesis" / "text.txt").write_text("three years")
    (folder / "mine.bin").write_text("mine")
    (folder / "c.bin").write_text("changed by its user")
    write(folder, {"a.bin": "2"}, overwrite=True)
    assert contents(folder) == {
        "a.bin": "2",
        "c.bin": "changed by its user",
        "mine.bin": "mine",
        "text.txt": "three years",
    }
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert (folder / "a.bin").stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o22))


@pytest.mark.parametrize("change", ["text", "link", "folder", "unlisted"])
def test_what_is_not_as_it_was_written_is_not_replaced(tmp_path, change):
    folder, target = tmp_path / "out", tmp_path / "elsewhere"
    write(folder, {"a.bin": "1"} if change != "unlisted" else {"b.bin": "1"})
    place = folder / "a.bin"
    place.unlink(missing_ok=True)
    target.write_text("1")
    {
        "text": lambda: place.write_text("edited"),
        "link": lambda: place.symlink_to(target),
        "folder": place.mkdir,
        "unlisted": lambda: place.write_text("mine"),
    }[change]()
    before = sorted((path, path.is_symlink()) for path in tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match=r"a\.bin is not as this command wrote it"):
        write(folder, {"a.bin": "2"}, overwrite=True)
    assert sorted((path, path.is_symlink()) for path in tmp_path.rglob("*")) == before
    assert target.read_text() == "1"


def test_a_description_of_a_stranger_removes_nothing(tmp_path):
    folder = tmp_path / "out"
    (tmp_path / "secret.bin").write_text("x")
    write(
        folder, {"a.bin": "1"}, more=[{"file": "../secret.bin", "sha256": None}, {"file": "notes.txt", "sha256": None}]
    )
    (folder / "notes.txt").write_text("x")
    write(folder, {"a.bin": "2"}, overwrite=True)
    assert contents(tmp_path) == {"secret.bin": "x", "a.bin": "2", "notes.txt": "x"}


@pytest.mark.parametrize("content", ["{}", "no json", '{"files": [1]}', "[]", '{"files": {"a": 1}}'])
def test_a_file_of_the_same_name_that_is_no_description_stays(tmp_path, content):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(SettingsError, match=r"list\.json was not written by this command"):
        write(tmp_path, {"a.bin": "1"}, overwrite=True)
    assert (tmp_path / "list.json").read_text() == content


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    write(tmp_path / "out", {"a.bin": "1"})

    def fail(folder):
        with owned(folder).writing(True) as staged:
            (staged / "a.bin").write_text("half")
            raise KeyboardInterrupt

    for folder in (tmp_path / "out", tmp_path / "x" / "y"):
        with pytest.raises(KeyboardInterrupt):
            fail(folder)
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "a.bin", "list.json"}
    assert contents(tmp_path) == {"a.bin": "1"}


def test_links_lead_to_their_folder_and_the_working_folder_is_one_like_others(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", {"a.bin": "1"})
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == {"a.bin": "1"}
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SettingsError, match="loop is a file"):
        owned(tmp_path / "loop").require([], False)
    monkeypatch.chdir(tmp_path / "real")
    write(type(tmp_path)(), {"a.bin": "2"}, overwrite=True)
    assert contents(tmp_path / "real") == {"a.bin": "2"}


def test_runs_and_folders_in_use_are_refused(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="is the folder of a run"):
        owned(tmp_path).require([], True)
    (tmp_path / "run.json").unlink()
    with held(tmp_path / ".list.json.lock", "other", 0), pytest.raises(RunError, match="in use by process"):
        write(tmp_path, {"a.bin": "1"})
    assert not list(tmp_path.iterdir())
