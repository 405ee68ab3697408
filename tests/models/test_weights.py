"""Every source of pretrained weights is taken, verified and told; what is none is one line and runs no code."""

import hashlib
import http.server
import io
import random
import ssl
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import torch
import trustme
from safetensors.torch import save_file

from visionforge.config.schema import Backbone
from visionforge.errors import WeightsError
from visionforge.models.build import build_network
from visionforge.models.inspect import weight_names
from visionforge.models.registry import backbone_entry
from visionforge.models.weight_files import read_weight_file
from visionforge.models.weights import pretrained_state

MINI = backbone_entry("mini_cnn")


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return build_network(Backbone(name="mini_cnn", pretrained=False), 3, 4, 16)[0].state_dict()


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("kind", ["pth", "safetensors", "wrapped", "checkpoint", "run"])
def test_local_sources(state, tmp_path, kind):
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "pth":
        torch.save(state, path)
    elif kind == "safetensors":
        save_file(state, path)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        path = tmp_path / "run" / "checkpoints" / "best.ckpt"
        path.parent.mkdir(parents=True)
        ours = {f"network.{name}": value for name, value in state.items()}
        torch.save({"state_dict": {**ours, "cumulative.first": torch.zeros(1)}}, path)
    named = tmp_path / "run" if kind == "run" else path
    found = pretrained_state(MINI, str(named), 16)
    assert same(dict(found.tensors), dict(state))
    assert found.source == str(named)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    _, report = build_network(Backbone(name="mini_cnn", pretrained=True, weights=str(named)), 3, 9, 28)
    assert report.source == str(named)
    assert report.new == ["head.1.weight", "head.1.bias"]


def test_published_weights_are_found_where_they_were_placed(tmp_path, monkeypatch):
    """The file that torchvision would download, put by hand where the message says, is taken."""
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    entry = backbone_entry("resnet18")
    file = tmp_path / "hub" / "checkpoints" / Path(ResNet18_Weights.DEFAULT.url).name
    source = resnet18(weights=None).state_dict()
    file.parent.mkdir(parents=True)
    torch.save(source, file)
    for tag in (None, "IMAGENET1K_V1"):
        found = pretrained_state(entry, tag, 28)
        assert same(dict(found.tensors), dict(source))
        assert found.source == "torchvision ResNet18_Weights.IMAGENET1K_V1"


@pytest.mark.parametrize("tag", ["a1_in1k", "fb_swsl_ig1b_ft_in1k"])
def test_tags_of_timm_beside_those_of_torchvision(tag, tmp_path, monkeypatch):
    """What the hub's cache folder has of timm's repository is taken offline."""
    from huggingface_hub import constants
    from torchvision.models import resnet18

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    entry = backbone_entry("resnet18")
    assert {"IMAGENET1K_V1", "a1_in1k", "fb_swsl_ig1b_ft_in1k"} <= set(weight_names(entry))
    assert weight_names(entry)[0] == "IMAGENET1K_V1"
    source = resnet18(weights=None).state_dict()
    folder = tmp_path / "hub" / f"models--timm--resnet18.{tag}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(source, folder / "snapshots" / "abc" / "model.safetensors")
    found = pretrained_state(entry, tag, 28)
    assert same(dict(found.tensors), dict(source))
    assert (found.source, found.mean) == (f"timm resnet18.{tag}", entry.mean)
    _, report = build_network(Backbone(name="resnet18", weights=tag), 3, 9, 28)
    assert (report.source, report.mapping, report.resampled) == (found.source, "name", ["conv1.weight"])


def test_a_tag_of_timm_that_is_not_here_names_the_cache_folder(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match=r"timm resnet18\.a1_in1k is not in .*hub and cannot be downloaded"):
        pretrained_state(backbone_entry("resnet18"), "a1_in1k", 28)


@pytest.mark.parametrize("weights", [None, "in1k"])
def test_without_timm(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "visionforge.models.from_timm", raising=False)
    with pytest.raises(WeightsError, match=r'timm is not installed; `pip install "visionforge-lightning\[timm\]"`'):
        pretrained_state(backbone_entry("vit_tiny"), weights, 28)
    with pytest.raises(WeightsError, match=r"'a1_in1k' does not exist; .* or one of IMAGENET1K_V1$"):
        pretrained_state(backbone_entry("resnet18"), "a1_in1k", 28)


def test_damaged_published_file_is_told(tmp_path, monkeypatch):
    from torchvision.models import ResNet18_Weights

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    file = tmp_path / "hub" / "checkpoints" / Path(ResNet18_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(WeightsError, match=f"{file.name} is damaged; delete it"):
        pretrained_state(backbone_entry("resnet18"), None, 28)


def test_damaged_files_of_many_kinds_are_told(tmp_path):
    """Random bytes and damaged copies of a good file: read, or refused in one printable line."""
    rng = random.Random(0)
    good = tmp_path / "good.pth"
    torch.save({"a.weight": torch.zeros(3, 2)}, good)
    whole = good.read_bytes()
    for case in range(600):
        content = bytearray(whole) if case % 2 else bytearray(rng.randbytes(rng.randrange(1, 60)))
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path = tmp_path / f"bad{rng.choice(['.pth', '.safetensors'])}"
        path.write_bytes(bytes(content))
        problems = []
        try:
            read_weight_file(path)
        except WeightsError as error:
            problems = error.problems
        assert len(problems) <= 1
        assert all(problem.isprintable() for problem in problems)


# --- addresses


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's content, and counts."""

    def do_GET(self):
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(state, tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(urllib.request, "_opener", None)
    one = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    one.socket = context.wrap_socket(one.socket, server_side=True)
    content = io.BytesIO()
    torch.save(state, content)
    one.content, one.requests = content.getvalue(), 0
    one.url = f"https://localhost:{one.server_port}/folder/net.pth"
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


def cached(tmp_path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob("*net.pth*") if not path.name.endswith(".lock"))


def test_address_with_its_digest(server, state, tmp_path):
    digest = hashlib.sha256(server.content).hexdigest()
    for _ in range(2):
        found = pretrained_state(MINI, f"{server.url}#sha256={digest}", 16)
        assert same(dict(found.tensors), dict(state))
        assert found.sha256 == digest
    assert server.requests == 1, "the second time it is on this machine"
    assert cached(tmp_path) == [f"{digest[:16]}-net.pth"]
    (damaged,) = tmp_path.rglob("*net.pth")
    damaged.write_bytes(b"damaged")
    pretrained_state(MINI, f"{server.url}#sha256={digest}", 16)
    assert server.requests == 2, "a damaged file is fetched again"


def test_file_with_another_digest_is_discarded(server, tmp_path):
    with pytest.raises(WeightsError, match=r"has SHA-256 .*, expected 0{64}; discarded"):
        pretrained_state(MINI, f"{server.url}#sha256={'0' * 64}", 16)
    assert not list(tmp_path.rglob("*net.pth*"))


def test_address_that_cannot_be_trusted(server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(WeightsError, match=r"cannot be downloaded .*CERTIFICATE_VERIFY_FAILED.* place it at"):
        pretrained_state(MINI, f"{server.url}#sha256={'0' * 64}", 16)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("https://host/net.pth", "needs its file's SHA-256"),
        ("https://host/net.pth#sha256=12", "needs its file's SHA-256"),
        ("https://host/net.pth#md5=" + "0" * 64, "needs its file's SHA-256"),
        ("https://host/#sha256=" + "0" * 64, "needs its file's SHA-256"),
        ("http://host/net.pth#sha256=" + "0" * 64, "only HTTPS"),
        ("file:///etc/passwd#sha256=" + "0" * 64, "only HTTPS"),
    ],
)
def test_bad_addresses(address, complaint):
    with pytest.raises(WeightsError, match=complaint):
        pretrained_state(MINI, address, 16)


# --- bad files


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_weight_files_of_strangers_run_no_code(tmp_path, capsys):
    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="is no weight file"):
        read_weight_file(tmp_path / "trap.pth")
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a weight file", b"PK\x03\x04" + b"\0" * 64, b"\xff" * 100])
def test_damaged_weight_file_is_one_line(tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_weight_file(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("model.backbone.weights: ")
    assert "\n" not in caught.value.problems[0]


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {1: torch.zeros(2)}, {"state_dict": {"a": "text"}}])
def test_file_that_holds_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weight_file(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("name", "weights", "complaint"),
    [
        ("resnet18", "IMAGENET9", "'IMAGENET9' does not exist; .* or one of IMAGENET1K_V1, .*a1_in1k"),
        ("efficientnet_v2_s", "a1_in1k", "'a1_in1k' does not exist; .* or one of IMAGENET1K_V1$"),
        ("efficientnet_lite0", "a1_in1k", "timm has no tf_efficientnet_lite0.a1_in1k; allowed: .*in1k"),
        ("mini_cnn", "none.pth", "'none.pth' does not exist; allowed: a .pth or .safetensors file, a run folder"),
        ("vit_tiny", "none.pth", "'none.pth' does not exist"),
        ("vit_tiny", "nothing", "timm has no vit_tiny_patch16_224.nothing; allowed: .*augreg_in21k_ft_in1k"),
        ("mini_cnn", ".", "is no run with a checkpoint"),
    ],
)
def test_weights_that_do_not_exist(name, weights, complaint):
    with pytest.raises(WeightsError, match=complaint):
        pretrained_state(backbone_entry(name), weights, 28)


def test_timm_weights_that_cannot_be_downloaded():
    complaint = r"cannot be downloaded .* or set model.backbone.pretrained to false"
    with pytest.raises(WeightsError, match=complaint) as caught:
        pretrained_state(backbone_entry("vit_tiny"), None, 28)
    assert len(caught.value.problems) == 1
