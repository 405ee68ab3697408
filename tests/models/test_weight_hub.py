"""Weights of a repository of the Hugging Face Hub: from its cache folder, or from a server; mistakes are one line."""

import hashlib
import io
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save

from tests.models.hub_server import COMMIT, REPOSITORY, point_to, served
from visionforge.config.schema import Backbone
from visionforge.errors import WeightsError
from visionforge.models import weight_hub
from visionforge.models.build import build_network
from visionforge.models.registry import backbone_entry
from visionforge.models.weights import pretrained_state

MINI = backbone_entry("mini_cnn")
NAME = f"hf-hub:{REPOSITORY}"
CONFIG = json.dumps({"pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}}).encode()

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return dict(build_network(Backbone(name="mini_cnn", pretrained=False), 3, 4, 16)[0].state_dict())


@pytest.fixture(scope="module")
def pickled(state):
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the hub's."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def online(cache, monkeypatch):
    """Serve files to this process, which is otherwise offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with served({}) as server:
        point_to(server.url, monkeypatch)
        yield server


def place(cache, files, revision="main"):
    """Fill the cache folder as huggingface_hub does."""
    folder = cache / f"models--{REPOSITORY.replace('/', '--')}"
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = folder / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(COMMIT)


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def refused(name: str, **changes: object) -> str:
    with pytest.raises(WeightsError) as caught:
        pretrained_state(MINI, name, 16)
    (line,) = caught.value.problems
    assert line.startswith("model.backbone.weights: ")
    assert line.isprintable()
    return line


# --- the cache folder


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
@pytest.mark.parametrize("file", weight_hub.FILES)
def test_what_the_cache_folder_has_is_taken_offline(cache, state, pickled, file, revision):
    content = save(state) if file.endswith("safetensors") else pickled
    place(cache, {file: content, "config.json": CONFIG})
    found = pretrained_state(MINI, NAME + revision, 16)
    assert same(dict(found.tensors), state)
    assert found.source == f"Hugging Face Hub {REPOSITORY}, {file}"
    assert (found.sha256, found.revision) == (hashlib.sha256(content).hexdigest(), COMMIT)
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


def test_the_report_says_where_they_came_from(cache, state):
    place(cache, {"model.safetensors": save(state), "config.json": CONFIG})
    _, report = build_network(Backbone(name="mini_cnn", weights=NAME), 3, 9, 28)
    told = report.as_dict()
    assert told["revision"] == COMMIT
    assert told["source"] == f"Hugging Face Hub {REPOSITORY}, model.safetensors"
    assert told["sha256"] == hashlib.sha256(save(state)).hexdigest()
    assert (told["mapping"], told["mean"], told["std"]) == ("name", [0.5, 0.4, 0.3], [0.2, 0.2, 0.1])


def test_safetensors_come_before_a_pickle(cache, state, pickled):
    place(cache, {"pytorch_model.bin": pickled, "model.safetensors": save(state)})
    assert pretrained_state(MINI, NAME, 16).source.endswith("model.safetensors")


def test_offline_and_not_there_names_the_folder(cache):
    line = refused(NAME)
    assert f"{REPOSITORY} is not in {cache} and cannot be downloaded" in line
    assert f"`hf download {REPOSITORY}`" in line


def test_another_revision_is_not_that_of_the_cache_folder(cache, state):
    place(cache, {"model.safetensors": save(state)})
    assert "cannot be downloaded" in refused(f"{NAME}@v2")


class Trap:
    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_code_in_a_pickle_does_not_run(cache, capsys):
    content = io.BytesIO()
    torch.save({"features.0.weight": Trap()}, content)
    place(cache, {"pytorch_model.bin": content.getvalue()})
    assert "is no weight file" in refused(NAME)
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[1]",
        b'{"pretrained_cfg": 3}',
        b"[" * 100_000,
        b'{"mean": [1, 2], "std": [1, 2]}',
        b'{"mean": ["a", "b", "c"], "std": [1, 1, 1]}',
        b'{"mean": [0, 0, 0], "std": [1, 1, 0]}',
        b'{"mean": [NaN, 0, 0], "std": [1, 1, 1]}',
        b'{"mean": [true, 0, 0], "std": [1, 1, 1]}',
        b'{"mean": [1' + b"0" * 400 + b', 0, 0], "std": [1, 1, 1]}',
        b'{"mean": [0, 0, 0], "std": [1, 1, 1], "x": "' + b"x" * weight_hub.MAX_CONFIG_BYTES + b'"}',
    ],
)
def test_a_configuration_that_says_nothing_usable_is_left_out(cache, state, config):
    place(cache, {"model.safetensors": save(state), "config.json": config})
    found = pretrained_state(MINI, NAME, 16)
    assert (found.mean, found.std) == (None, None)


def test_other_names_of_the_same_facts():
    mean, std = weight_hub.expected_pixels({"image_mean": [0, 0.5, 1], "image_std": [1, 1, 1]})
    assert (mean, std) == ((0.0, 0.5, 1.0), (1.0, 1.0, 1.0))


# --- a server


@pytest.mark.parametrize("file", weight_hub.FILES)
def test_download_and_then_the_cache_folder(online, cache, state, pickled, file):
    content = save(state) if file.endswith("safetensors") else pickled
    online.files |= {file: content, "config.json": CONFIG}
    found = pretrained_state(MINI, NAME, 16)
    assert same(dict(found.tensors), state)
    assert (found.revision, found.sha256) == (COMMIT, hashlib.sha256(content).hexdigest())
    assert found.mean == (0.5, 0.4, 0.3)
    asked = len(online.requests)
    assert asked
    again = pretrained_state(MINI, NAME, 16)
    assert same(dict(again.tensors), state)
    assert len(online.requests) == asked, "the second time it is on this machine"
    assert list(cache.rglob(file))


def test_a_revision_is_asked_for(online, state):
    online.files["model.safetensors"] = save(state)
    assert pretrained_state(MINI, f"{NAME}@v1", 16).revision == COMMIT
    assert any("/resolve/v1/" in request for request in online.requests)


def test_a_file_that_is_too_large_is_not_downloaded(online, cache, monkeypatch):
    online.files["model.safetensors"] = b"x" * 2000
    monkeypatch.setattr(weight_hub, "MAX_BYTES", 1000)
    assert "model.safetensors is of 2,000 bytes; at most 1,000 are taken" in refused(NAME)
    assert all(request.startswith("HEAD") for request in online.requests)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (NAME, f"hf-hub:{REPOSITORY} has neither model.safetensors nor pytorch_model.bin"),
        (f"{NAME}@v2", f"hf-hub:{REPOSITORY} has no revision v2"),
        ("hf-hub:nobody/nothing", "there is no such repository, or it is not public"),
    ],
)
def test_what_the_hub_does_not_have(online, name, complaint):
    assert complaint in refused(name)


def test_a_server_that_is_gone(cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to("http://127.0.0.1:9", monkeypatch)
    assert f"is not in {cache} and cannot be downloaded" in refused(NAME)


@pytest.mark.parametrize(
    "name", ["", "net", "a/b/c", "../x", "a/..", "a/b@", "a/b@../x", "a/b@x/../y", "a b/c", "/a/b"]
)
def test_names_of_no_repository(name):
    assert "allowed is hf-hub:OWNER/NAME or hf-hub:OWNER/NAME@REVISION" in refused(f"hf-hub:{name}")


@pytest.mark.parametrize("name", ["a--b/c", "a/b.git"])
def test_names_that_the_hub_does_not_allow(name, cache):
    assert refused(f"hf-hub:{name}").startswith(f"model.backbone.weights: hf-hub:{name}: ")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert '`pip install "visionforge-lightning[hub]"`' in refused(NAME)


@pytest.mark.slow
def test_another_process_downloads_from_the_endpoint_of_its_environment(state, tmp_path):
    code = (
        "from visionforge.models.registry import backbone_entry\n"
        "from visionforge.models.weights import pretrained_state\n"
        f"found = pretrained_state(backbone_entry('mini_cnn'), {NAME!r}, 16)\n"
        "print(found.revision, len(found.tensors))\n"
    )
    with served({"model.safetensors": save(state)}) as server:
        changes = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        for offline in ("0", "1"):  # the second time without asking
            environment = {**os.environ, **changes, "HF_HUB_OFFLINE": offline}
            done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            assert done.stdout.split() == [COMMIT, str(len(state))], done.stderr
    assert list((tmp_path / "home" / "hub").rglob("model.safetensors"))
