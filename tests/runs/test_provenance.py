"""Facts on the code are read without starting what a repository names."""

import subprocess

import pytest

from visionforge.runs.provenance import changed_files, git_state


@pytest.fixture
def repository(tmp_path):
    """A work tree with a file, a link and a submodule, and a file outside that shows whether a program was started."""

    def git(*arguments, folder=tmp_path / "tree"):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
        subprocess.run(["git", *identity, "-C", folder, *arguments], check=True, capture_output=True)

    for name in ("tree", "other"):
        (tmp_path / name).mkdir()
        git("init", "-q", folder=tmp_path / name)
        (tmp_path / name / "a file ü.txt").write_text("content\n")
        git("add", ".", folder=tmp_path / name)
        git("commit", "-qm", "x", folder=tmp_path / name)
    (tmp_path / "tree" / "link").symlink_to("a file ü.txt")
    git("submodule", "add", "-q", str(tmp_path / "other"), "module")
    git("add", ".")
    git("commit", "-qm", "y")
    return tmp_path / "tree", git


def test_changed_files_are_counted_as_git_counts_them(repository):
    tree, git = repository
    state = git_state(tree / "module" / "..")
    assert (state["branch"], state["changed_files"]) in {("main", 0), ("master", 0)}
    assert len(state["commit"]) == 40
    (tree / "a file ü.txt").touch()  # another time, the same content
    assert changed_files(tree) == 0
    (tree / "a file ü.txt").write_text("CONTENT\n")  # the same size
    assert changed_files(tree) == 1
    (tree / "link").unlink()
    assert changed_files(tree) == 2
    (tree / "new").write_text("not tracked")
    assert changed_files(tree) == 2
    git("add", ".")
    assert changed_files(tree) == 0  # as it is staged
    assert git_state(tree.parent) is None


def test_a_folder_inside_the_work_tree_stands_for_all_of_it(repository):
    tree, git = repository
    (tree / "inner" / "deep").mkdir(parents=True)
    (tree / "inner" / "deep" / "file").write_text("x")
    git("add", ".")
    assert changed_files(tree / "inner" / "deep") == 0
    (tree / "a file ü.txt").write_text("changed")
    (tree / "inner" / "deep" / "file").write_text("y")
    assert changed_files(tree / "inner" / "deep") == changed_files(tree) == 2


def test_no_program_of_the_repository_is_started(repository):
    tree, git = repository
    started = tree.parent / "STARTED"
    hook = tree.parent / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {started}\ncat\n")
    hook.chmod(0o755)
    for folder in (tree, tree / "module"):
        for key in ("filter.x.clean", "filter.x.process", "core.fsmonitor", "core.sshCommand", "diff.external"):
            git("config", key, str(hook), folder=folder)
        (folder / ".gitattributes").write_text("* filter=x diff=x\n")
        (folder / "a file ü.txt").write_text("changed\n")
    assert git_state(tree)["changed_files"] == 1
    assert not started.exists()
    subprocess.run(["git", "-C", tree, "status"], capture_output=True, check=False)
    assert started.exists()  # git itself would have started it
