"""Folders are the same from any working directory, and saved paths mean the same place on another machine."""

from pathlib import Path

import pytest

from tests.runs.helpers import create, readable_folder, without_rights
from visionforge.runs.paths import (
    cache_folder,
    data_folder,
    outputs_folder,
    portable,
    project_folder,
    resolve,
    shown,
)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "project"
    (folder / "deep" / "down").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("")
    monkeypatch.chdir(folder / "deep" / "down")
    return folder


def test_outputs_lie_in_the_project_wherever_one_stands(project, monkeypatch):
    for folder in ("deep/down", "deep", "."):
        monkeypatch.chdir(project / folder)
        assert outputs_folder() == project / "outputs"


def test_nearest_strong_marker_wins_over_a_readme_inside(project):
    (project / "deep" / "README.md").write_text("")
    assert project_folder() == project
    (project / "deep" / ".git").mkdir()
    assert project_folder() == project / "deep"


def test_readme_alone_marks_a_project(tmp_path, monkeypatch):
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "work" / "README.md").write_text("")
    monkeypatch.chdir(tmp_path / "work" / "sub")
    assert project_folder() == tmp_path / "work"


def test_without_a_project_outputs_are_here_and_mark_the_place(tmp_path, monkeypatch):
    (tmp_path / "work" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert outputs_folder() == tmp_path / "work" / "outputs"
    create(outputs_folder()).finish("complete")
    monkeypatch.chdir(tmp_path / "work" / "sub")
    assert outputs_folder() == tmp_path / "work" / "outputs"


def test_where_nothing_can_be_written_outputs_are_the_users(monkeypatch, tmp_path):
    with readable_folder() as folder:
        monkeypatch.chdir(folder)
        with without_rights():
            assert outputs_folder() == tmp_path.with_name(f"{tmp_path.name}-share") / "visionforge" / "outputs"
        monkeypatch.chdir(tmp_path)


def test_variables_win(project, monkeypatch, tmp_path):
    for name, folder in (
        ("VISIONFORGE_OUTPUTS", outputs_folder),
        ("VISIONFORGE_DATA", data_folder),
        ("VISIONFORGE_CACHE", cache_folder),
    ):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert folder() == tmp_path / name


def test_data_lies_in_the_project_if_it_has_a_folder_for_it(project, tmp_path):
    assert data_folder() == tmp_path / "cache" / "visionforge" / "datasets"
    (project / "dataset").mkdir()
    assert data_folder() == project / "dataset"


def test_paths_are_saved_relative_to_their_anchor_and_read_back(project, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cases = {
        project / "weights" / "a.pth": "project://weights/a.pth",
        project / "outputs" / "run": "outputs://run",
        data_folder() / "x.npz": "data://x.npz",
        cache_folder() / "weights": "cache://weights",
        data_folder(): "data://",
        tmp_path / "home" / "y": "~/y",
        Path("/elsewhere/z"): "/elsewhere/z",
    }
    for path, text in cases.items():
        assert portable(path) == text
        assert portable(text) == text
        assert resolve(text) == path
    assert portable("../a") == "project://deep/a"


def test_another_machine_means_its_own_folder(project, tmp_path, monkeypatch):
    saved = portable(project / "w.pth")
    other = tmp_path / "elsewhere"
    (other / ".git").mkdir(parents=True)
    monkeypatch.chdir(other)
    assert resolve(saved) == other / "w.pth"


@pytest.mark.parametrize("text", ["s3://bucket/x", "nowhere://x", "project:///etc/passwd", "data://../../x"])
def test_path_that_leads_nowhere_or_out_is_refused(project, text):
    with pytest.raises(ValueError, match=r"no such anchor|leads out"):
        resolve(text)


def test_paths_are_shown_as_one_would_type_them(project, monkeypatch):
    monkeypatch.chdir(project)
    assert shown(project / "outputs" / "x") == Path("outputs/x")
    assert shown(Path("/elsewhere")) == Path("/elsewhere")
