"""A tag is released only if everything names its version, by a workflow with no more rights than it needs."""

import importlib.util
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.conftest import REPOSITORY
from visionforge.distribution import DISTRIBUTION, own_version

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
RELEASE = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
SCRIPT = REPOSITORY / ".ci" / "check_release.py"
MAJOR = {"actions/checkout": "v4", "actions/setup-python": "v5", "pypa/gh-action-pypi-publish": "release/v1"}


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_release", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ready(tmp_path):
    """A repository whose version is ready to be released."""
    for name in ("pyproject.toml", "CITATION.cff"):
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    changes = (
        f"# Changelog\n\n## {own_version()} - 2026-12-01\n\n### Added\n\n- All.\n\n## 0.0.1 - 2026-01-01\n\n- Less.\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(changes)
    run = tmp_path / "tests" / "upgrades" / own_version() / "run"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    return tmp_path


def replaced(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_version_that_is_ready(check, ready):
    assert list(check.problems(f"v{own_version()}", ready)) == []
    assert check.newest((ready / "CHANGELOG.md").read_text())[2] == "### Added\n\n- All."


def test_everything_that_is_missing_is_told_at_once(check, ready):
    shutil.rmtree(ready / "tests")
    told = list(check.problems("v9.9.9", ready))
    assert [line.partition(":")[0] for line in told] == [
        "pyproject.toml",
        "CITATION.cff",
        "CHANGELOG.md",
        "tests/upgrades/9.9.9",
    ]
    assert told[0] == f"pyproject.toml: has version {own_version()}, the tag v9.9.9"


@pytest.mark.parametrize("day", ["unreleased", "1 December 2026", "2026-13-01", "20261201"])
def test_a_version_without_its_day_is_not_released(check, ready, day):
    replaced(ready / "CHANGELOG.md", "2026-12-01", day)
    (line,) = check.problems(f"v{own_version()}", ready)
    assert f"says {day} where its day belongs" in line


def test_a_version_without_changes_is_not_released(check, ready):
    replaced(ready / "CHANGELOG.md", "### Added\n\n- All.\n", "")
    (line,) = check.problems(f"v{own_version()}", ready)
    assert "names no change" in line


@pytest.mark.parametrize("tag", ["0.1.0", "v1", "v0.1.0; rm -rf x", "v0.1.0+local", "vv0.1.0"])
def test_what_is_no_tag_of_a_release(check, ready, tag):
    (line,) = check.problems(tag, ready)
    assert line.startswith(f"{tag}: is no tag of a release")


def test_the_script_runs_as_the_workflow_runs_it(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "v9.9.9", "--notes", tmp_path / "notes.md"], capture_output=True)
    assert done.returncode == 1
    assert b"pyproject.toml: has version" in done.stderr
    assert not (tmp_path / "notes.md").exists()


def test_the_notes_are_the_section_of_the_version(check, tmp_path, monkeypatch, ready):
    monkeypatch.setattr(check, "REPOSITORY", ready)
    monkeypatch.setattr(check, "problems", lambda tag: ())
    assert check.main([f"v{own_version()}", "--notes", str(tmp_path / "notes.md")]) == 0
    assert (tmp_path / "notes.md").read_text() == "### Added\n\n- All.\n"


def test_the_changelog_of_this_version_is_open_or_has_a_day(check):
    version, day, text = check.newest((REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert version == own_version()
    assert day == "unreleased" or check._is_day(day)
    assert text


# --- the workflows


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_follow_the_schema(path):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_who_publishes_has_rights():
    assert RELEASE["permissions"] == {}
    rights = {name: job["permissions"] for name, job in RELEASE["jobs"].items()}
    read = {"contents": "read"}
    assert rights == {
        "gate": read,
        "build": read,
        "try": {},
        "audit": {},
        "publish": {"id-token": "write"},
        "announce": {"contents": "write"},
    }
    assert "secrets" not in str(RELEASE)
    for job in ("publish", "announce"):  # no code of the repository or of an index runs there
        used = [step.get("uses", "").partition("@")[0] for step in RELEASE["jobs"][job]["steps"]]
        assert set(used) <= {"actions/download-artifact", "pypa/gh-action-pypi-publish", ""}


def test_nothing_is_published_that_was_not_tried_and_audited():
    needs = {name: job.get("needs") for name, job in RELEASE["jobs"].items()}
    assert needs["publish"] == ["gate", "build", "try", "audit"]
    assert needs["announce"] == "publish"
    builds = [name for name, job in RELEASE["jobs"].items() if "python -m build" in str(job)]
    assert builds == ["build"]
    assert RELEASE["jobs"]["try"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert f"--exclude {DISTRIBUTION} " in str(RELEASE["jobs"]["audit"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_workflows_run_is_named_by_version_and_takes_no_text_from_outside(path):
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    for name, version in (step["uses"].split("@") for step in steps if "uses" in step):
        assert version == MAJOR.get(name, "v4"), name
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]
