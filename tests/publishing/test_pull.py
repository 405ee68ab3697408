"""`visionforge pull`: the network that was pushed, whole or not at all; what strangers publish does no harm."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import visionforge as vf
from tests.runs.helpers import small_disk
from visionforge.cli.main import main
from visionforge.errors import SettingsError
from visionforge.publishing import layout

NAME = "me/net"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(np.random.default_rng(7).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def there(hub, published):
    """A repository with the published network."""
    return hub.made(NAME, {path.name: path.read_bytes() for path in published.iterdir()})


def change(folder, **facts) -> None:
    """Change what the description of a folder says."""
    path = folder / "visionforge.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def listed(folder, name, **facts) -> None:
    """Change what the description says of a file; of one that it does not list, list it."""
    files = json.loads((folder / "visionforge.json").read_text())["files"]
    entry = next((each for each in files if each["file"] == name), None)
    if entry is None:
        entry = {"file": name, "bytes": 1, "sha256": "0" * 64}
        files.append(entry)
    entry |= facts
    change(folder, files=files)


def relisted(folder, name) -> None:
    """List a file as it is."""
    content = (folder / name).read_bytes()
    listed(folder, name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


# --- there and back


def test_a_pulled_network_says_what_the_run_says(hub, plain_run, photos, tmp_path, capsys):
    assert main(["push", str(plain_run), NAME, "--private"]) == 0
    capsys.readouterr()
    assert main(["pull", NAME]) == 0
    said = capsys.readouterr().out.splitlines()
    commit = hub.repositories[NAME].branches["main"]
    assert said[0].endswith(f"from me/net at {commit[:12]}")
    assert said[2] == "  visionforge predict --model net/model.safetensors --images …"
    assert json.loads(Path("net/pulled.json").read_text()) == {
        "hub": hub.url,
        "repository": NAME,
        "revision": "main",
        "commit": commit,
    }
    of_run = ["predict", "--run", str(plain_run), "--images", str(photos), "--out", "run.csv"]
    of_pulled = ["predict", "--model", "net/model.safetensors", "--images", str(photos), "--out", "pulled.csv"]
    assert main(of_run) == main(of_pulled) == 0
    ours, theirs = (pd.read_csv(tmp_path / name) for name in ("pulled.csv", "run.csv"))
    assert len(ours) == 6
    pd.testing.assert_frame_equal(ours, theirs[ours.columns], atol=1e-5)


def test_a_revision_is_the_commit_that_it_was(hub, there, published):
    first = there.branches["main"]
    there.commit("main", {})
    pulled = vf.pull(NAME, revision=first, out="old")
    assert (pulled.commit, pulled.fetched, pulled.source) == (first, True, NAME)
    assert pulled.model.read_bytes() == (published / "model.safetensors").read_bytes()
    assert {path.name for path in pulled.path.iterdir()} == {path.name for path in published.iterdir()} | {
        "pulled.json"
    }


def test_only_what_is_listed_is_asked_for(hub, there):
    files = there.files()
    there.commit("main", {**files, "run_me.py": b"print()", "model.pkl": b"x", "sub/x.txt": b""})
    pulled = vf.pull(NAME)
    assert {path.name for path in pulled.path.iterdir()} == {*files, "pulled.json"}
    assert not any("run_me" in each or "pkl" in each for each in hub.requests)


def test_what_is_there_already_is_not_fetched_again(hub, there, capsys, refuse):
    assert main(["pull", NAME]) == 0
    before = {path: path.stat().st_mtime_ns for path in Path("net").iterdir()}
    hub.requests.clear()
    capsys.readouterr()
    assert main(["pull", NAME]) == 0
    assert "is there already, and whole: net" in capsys.readouterr().out
    assert not any("model.safetensors" in each for each in hub.requests)
    assert {path: path.stat().st_mtime_ns for path in Path("net").iterdir()} == before
    with Path("net/model.safetensors").open("r+b") as file:
        file.write(b"x")
    (line,) = refuse("pull", NAME)
    assert line == "--out: net exists, and is not this network; name another with --out"


def test_a_folder_that_was_carried_here(own, photos):
    pulled = vf.pull(own.parent / "net", out="far/away")
    assert (pulled.source, pulled.commit, pulled.path) == ("net", None, Path("far/away"))
    assert json.loads(Path("far/away/pulled.json").read_text()) == {"folder": "net"}
    assert len(vf.predict(pulled.model, photos, out="said.csv").table) == 6


def test_a_folder_can_be_looked_at_where_it_is(own, monkeypatch, refuse, capsys):
    monkeypatch.chdir(own.parent)
    assert main(["pull", "./net"]) == 0
    assert "is there already, and whole: net" in capsys.readouterr().out
    (own / "model.safetensors").write_bytes(b"x" * (own / "model.safetensors").stat().st_size)
    assert "model.safetensors has another SHA-256" in refuse("pull", "./net")[0]


def test_owner_and_name_are_a_repository_whatever_lies_here(hub, own, tmp_path, refuse):
    shutil.copytree(own, tmp_path / "me" / "net")
    assert "there is no such repository" in refuse("pull", NAME, "--out", "x")[0]
    assert main(["pull", "./me/net", "--out", "x"]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nothing"], "source: nothing is no folder, and not OWNER/NAME of a repository"),
        (["a/b/c"], "source: a/b/c is no folder"),
        (["../x"], "source: ../x is no folder"),
        (["me/net", "--revision", "a..b"], "--revision: a..b is not allowed"),
        (["./given/net", "--revision", "main"], "--revision: main is of a repository"),
        (["./given/net", "--out", "given"], "--out: given exists, and is not this network"),
    ],
)
def test_arguments_that_are_not_allowed(own, refuse, arguments, complaint):
    pytest.importorskip("huggingface_hub")
    assert refuse("pull", *arguments)[0].startswith(complaint)


# --- what a hub may not have, or say


@pytest.mark.parametrize(
    ("name", "revision", "complaint"),
    [
        ("nobody/nothing", None, "there is no such repository, or it is private and not yours"),
        (NAME, "v9", "has no revision v9"),
    ],
)
def test_what_is_not_there(there, refuse, name, revision, complaint):
    more = [] if revision is None else ["--revision", revision]
    (line,) = refuse("pull", name, *more)
    assert line.startswith(f"repository: {name}: {complaint}")


def test_a_private_one_needs_a_token(hub, there, refuse, monkeypatch):
    there.private = True
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    (line,) = refuse("pull", NAME)
    assert "the token was rejected (401" in line
    assert "hf_of_somebody" not in line
    monkeypatch.delenv("HF_TOKEN")
    assert "for a private one, `hf auth login`, or set HF_TOKEN" in refuse("pull", NAME)[0]


def test_another_layout(hub, refuse):
    hub.made("you/bert", {"pytorch_model.bin": b"x", "config.json": b"{}"})
    assert refuse("pull", "you/bert") == [
        "you/bert: has no visionforge.json, so it is no network that `visionforge push` has published"
    ]


def test_a_hub_that_is_gone(hub, refuse, monkeypatch):
    from tests.models.hub_server import point_to

    point_to("http://127.0.0.1:9", monkeypatch)
    (line,) = refuse("pull", NAME)
    assert line.startswith("repository: me/net: http://127.0.0.1:9 cannot be reached (")


def test_offline(hub, refuse, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refuse("pull", NAME)[0]


@pytest.mark.parametrize("name", ["visionforge.json", "config.yaml", "model.safetensors"])
def test_bodies_without_end_are_left(hub, there, refuse, monkeypatch, name):
    monkeypatch.setattr("visionforge.publishing.pull.MOST_TEXT", 100_000)
    hub.endless.add(name)
    (line,) = refuse("pull", NAME)
    assert line.startswith(f"me/net: {name} is larger than the ")


@pytest.mark.parametrize(
    "body", [b"<!doctype html><title>log in</title>", b"[1]", b"null", b"{", b"\xff\xfe", b"[" * 100_000]
)
def test_a_description_that_is_none(hub, there, refuse, body):
    there.commit("main", {**there.files(), "visionforge.json": body})
    (line,) = refuse("pull", NAME)
    assert line.startswith("me/net: visionforge.json ")
    assert line.isprintable()


def test_a_page_in_the_place_of_a_file(hub, there, refuse):
    there.commit("main", {**there.files(), "model.safetensors": b"<html>over quota</html>"})
    assert "model.safetensors has 23 bytes, not " in refuse("pull", NAME)[0]


def test_a_connection_that_ends(hub, there, refuse):
    hub.claims["config.yaml"] = 1_000_000
    assert "me/net: " in refuse("pull", NAME)[0]


# --- hostile folders


NAMES = ("../x.txt", "/etc/passwd", "sub/model.safetensors", "model.pkl", "run.py", "", ".git", "pulled.json", "a\nb")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_not_taken(own, refuse, name):
    listed(own, name)
    (line,) = refuse("pull", "./given/net")
    assert "which is not taken; allowed: model.safetensors, " in line
    assert line.isprintable()


def test_too_many_files(own, refuse):
    change(own, files=[{"file": "config.json", "bytes": 1, "sha256": "0" * 64}] * 1000)
    assert "visionforge.json cannot be read (files: " in refuse("pull", "./given/net")[0]


def test_a_file_twice(own, refuse):
    files = json.loads((own / "visionforge.json").read_text())["files"]
    change(own, files=[*files, files[0]])
    assert "lists a file twice" in refuse("pull", "./given/net")[0]


@pytest.mark.parametrize(
    ("name", "size", "complaint"),
    [
        ("model.safetensors", 3_000_000_000, "is of 3,000,000,000 bytes; at most 2,000,000,000 are taken"),
        ("config.yaml", 9_000_000, "is of 9,000,000 bytes; at most 8,000,000 are taken"),
        ("config.yaml", 10, "config.yaml is larger than the 10 bytes that it may have"),
        ("config.yaml", 1_000_000, "bytes, not 1,000,000 as visionforge.json says"),
        ("config.yaml", -1, "visionforge.json cannot be read (files."),
        ("config.yaml", 10**99, "at most 8,000,000 are taken"),
        ("config.yaml", 10**100, "holds a number of 101 digits"),
    ],
)
def test_sizes_that_are_claimed(own, refuse, name, size, complaint):
    listed(own, name, bytes=size)
    assert complaint in refuse("pull", "./given/net")[0]


@pytest.mark.parametrize("name", ["README.md", "config.json", "config.yaml", "metrics.json", "model.safetensors"])
def test_a_file_that_was_changed(own, refuse, name):
    content = (own / name).read_bytes()
    (own / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert f"net: {name} has another SHA-256 than visionforge.json says" in refuse("pull", "./given/net")[0]


@pytest.mark.parametrize("name", ["config.yaml", "visionforge.json", "model.safetensors"])
def test_links_are_not_followed(own, refuse, tmp_path, name):
    target = tmp_path / "secret"
    (own / name).rename(target)
    (own / name).symlink_to(target)
    assert f"net: {name} is a link, which is not followed" in refuse("pull", "./given/net")[0]


def test_pipes_and_folders_are_no_files(own, refuse):
    (own / "config.yaml").unlink()
    os.mkfifo(own / "config.yaml")
    assert "config.yaml is no file" in refuse("pull", "./given/net")[0]
    (own / "config.yaml").unlink()
    (own / "config.yaml").mkdir()
    assert "config.yaml is no file" in refuse("pull", "./given/net")[0]


def test_what_is_missing(own, refuse):
    (own / "config.yaml").unlink()
    assert "net: has no config.yaml, which visionforge.json lists" in refuse("pull", "./given/net")[0]
    files = json.loads((own / "visionforge.json").read_text())["files"]
    for gone in ("model.safetensors", "config.json"):
        change(own, files=[each for each in files if each["file"] != gone])
        assert "does not list " in refuse("pull", "./given/net")[0]


def test_a_later_format(own, refuse):
    change(own, format=2, version="9.0")
    assert "was written by visionforge 9.0; " in refuse("pull", "./given/net")[0]
    assert "does not know its format 2" in refuse("pull", "./given/net")[0]


def test_a_pointer_of_git_lfs_is_explained(own, refuse):
    (own / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "is a pointer of Git LFS: run `git lfs pull`" in refuse("pull", "./given/net")[0]


@pytest.mark.parametrize("text", ["{}", "[]", '{"format_version": 2, "version": "9"}', "<html>"])
def test_a_contract_that_is_none(own, refuse, text):
    (own / "config.json").write_text(text)
    relisted(own, "config.json")
    assert refuse("pull", "./given/net")[0].startswith("net: config.json: ")


def test_a_contract_of_another_network(own, refuse):
    contract = json.loads((own / "config.json").read_text())
    contract["spec"]["classes"][0] = "another"
    (own / "config.json").write_text(json.dumps(contract))
    relisted(own, "config.json")
    assert "config.json is not the contract in model.safetensors" in refuse("pull", "./given/net")[0]


def test_a_file_that_is_no_network(own, refuse):
    (own / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    relisted(own, "model.safetensors")
    assert "model.safetensors: cannot be read as safetensors" in refuse("pull", "./given/net")[0]


def test_the_card_is_not_read(own):
    bomb = "---\na: &a [x, x, x]\n" + "\n".join(f"b{n}: &b{n} [*a, *a]" for n in range(50)) + "\n---\n"
    (own / "README.md").write_text(bomb)
    relisted(own, "README.md")
    assert main(["pull", "./given/net"]) == 0
    assert Path("net/README.md").read_text() == bomb


def test_what_it_says_is_printable(own, capsys):
    change(own, dataset="x\x1b[31m", backbone="y\u202e", task="z\r")
    assert main(["pull", "./given/net"]) == 0
    said = capsys.readouterr().out
    assert "\\x1b[31m" in said
    assert all(line.isprintable() for line in said.splitlines())


# --- disks


def test_a_disk_that_is_full(own, tmp_path, refuse):
    with small_disk(tmp_path / "disk", "64k"):
        assert "MB are free" in refuse("pull", "./given/net", "--out", "disk/net")[0]


def test_nothing_is_left_of_a_pull_that_fails(own, tmp_path, refuse):
    (own / "model.safetensors").write_bytes(b"short")
    refuse("pull", "./given/net", "--out", "a/b/c")
    assert not (tmp_path / "a").exists()


def test_what_a_killed_pull_left_is_removed(own, tmp_path):
    from visionforge.runs.staging import MARK

    left = tmp_path / ".net.abcdefgh"
    (left / "files").mkdir(parents=True)
    (left / "files" / "model.safetensors").write_bytes(b"half")
    (left / MARK).write_text(json.dumps({"folder": left.name, "for": "net", "by": "visionforge"}))
    assert main(["pull", "./given/net"]) == 0
    assert not left.exists()


def test_a_folder_that_may_not_be_written(own, tmp_path, refuse):
    (tmp_path / "file").write_text("")
    assert refuse("pull", "./given/net", "--out", "file/net")[0].startswith("--out: file/net cannot be written (")


def test_errors_are_those_of_the_package(own):
    with pytest.raises(SettingsError, match=r"out: .* exists, and is not this network"):
        vf.pull(own, out=own.parent)


def test_names_of_the_layout():
    assert set(layout.LARGEST) == {
        "README.md",
        "config.json",
        "config.yaml",
        "metrics.json",
        *layout.ARTIFACTS.values(),
    }
