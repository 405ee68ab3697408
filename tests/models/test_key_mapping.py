"""Tensors are found by name, or by order where all shapes agree; what does not agree, and what may, is told."""

import logging
import math

import pytest
import timm
import torch
from torch import nn

from tests.models.helpers import build, saved
from visionforge.config.schema import Backbone
from visionforge.errors import WeightsError
from visionforge.models import backbone_entry
from visionforge.models.build import build_network
from visionforge.models.efficientnet import rename_timm
from visionforge.models.key_mapping import map_keys


def small() -> dict[str, torch.Tensor]:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    network.add_module("head", nn.Linear(4, 5))
    return network.state_dict()


def renamed(state, prefix="their_"):
    return {f"{prefix}{name}": value for name, value in state.items()}


def counterless(state):
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def test_known_names_are_kept():
    state = small()
    found = map_keys(state, state, "head.")
    assert (found.by, found.problem, list(found.tensors)) == ("name", "", list(state))


@pytest.mark.parametrize("change", [lambda s: s, counterless, lambda s: dict(list(s.items())[:-2])])
def test_other_names_in_the_same_order(change):
    state = small()
    found = map_keys(renamed(change(state)), state, "head.")
    assert (found.by, found.problem) == ("order", "")
    for name, value in found.tensors.items():
        assert value is state[name]
    assert set(state) - set(found.tensors) <= {n for n in state if "head" in n or "num_batches_tracked" in n}


def test_how_many_could_change_places_unnoticed():
    """Two norms, whose biases could also be those of the convolutions; nothing of the classifier."""
    state = small()
    assert map_keys(renamed(state), state, "head.").alike == 2 * 3 + 4
    silent = {f"{number}": value for number, value in enumerate(counterless(state).values())}
    assert map_keys(silent, state, "head.").alike == 2 * 4 + 2, "names that say nothing leave more open"
    only = {"a.weight": torch.zeros(2, 3), "b.weight": torch.zeros(3, 2)}
    assert map_keys(renamed(only), only, "head.").alike == 0


def test_shapes_that_change_by_rule():
    state = small()
    theirs = renamed({**state, "0.weight": torch.zeros(4, 3, 7, 7), "head.weight": torch.zeros(9, 4)})
    assert map_keys(theirs, state, "head.", fitted=("0.weight",)).by == "order"
    refused = map_keys(theirs, state, "head.")
    assert refused.problem.startswith(
        "and by order its tensor 1, their_0.weight (4, 3, 7, 7), is not the network's, 0.w"
    )


def _swapped(state, one, other):
    names = list(state)
    i, j = names.index(one), names.index(other)
    names[i], names[j] = names[j], names[i]
    return {name: state[name] for name in names}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: {**s, "more": torch.zeros(1)}, "and it has 15 tensors, the network 14"),
        (
            lambda s: _swapped(s, "1.weight", "1.bias"),
            "its tensor 3, their_1.bias (4,), is not the network's, 1.weight",
        ),
        (lambda s: _swapped(s, "1.running_mean", "1.running_var"), "its tensor 5, their_1.running_var (4,)"),
        (lambda s: _swapped(s, "0.weight", "2.weight"), "its tensor 1, their_2.weight (4, 4, 3, 3)"),
        (lambda s: {**s, "head.weight": torch.zeros(5, 6)}, "its tensor 13, their_head.weight (5, 6)"),
    ],
)
def test_what_does_not_agree_is_told(change, complaint):
    state = small()
    found = map_keys(renamed(change(state)), state, "head.")
    assert found.by == "name"
    assert complaint in found.problem


def test_files_by_order_are_taken_and_told(tmp_path, caplog):
    source = build("mini_cnn", classes=4)
    theirs = saved(source, tmp_path / "x.pth")
    torch.save(renamed(source.state_dict()), theirs)
    with caplog.at_level(logging.INFO, logger="visionforge"):
        ours, report = build_network(Backbone(name="mini_cnn", weights=theirs), 3, 9, 28)
    assert (report.mapping, report.as_dict()["mapping"]) == ("order", "order")
    assert "found by order and shape, as no name is known; 0 share theirs with another" in caplog.text
    body = [name for name in source.state_dict() if not name.startswith("head.")]
    assert all(torch.equal(ours.state_dict()[name], source.state_dict()[name]) for name in body)
    by_name = build_network(Backbone(name="mini_cnn", weights=saved(source, tmp_path / "y.pth")), 3, 9, 28)[1]
    assert (by_name.mapping, by_name.alike) == ("name", 0)
    assert "found by" not in str(by_name)


def test_files_that_go_neither_way_are_one_line(tmp_path):
    theirs = saved(build("mini_cnn"), tmp_path / "x.pth")
    with pytest.raises(WeightsError) as caught:
        build_network(Backbone(name="resnet18", weights=theirs), 3, 9, 28)
    (line,) = caught.value.problems
    assert "no tensor has a name that the network knows; and it has 17 tensors, the network 102" in line


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    source = build("mini_cnn")
    with torch.no_grad():
        source.get_parameter("features.0.weight")[0, 0, 0, :2] = value
    with pytest.raises(WeightsError, match=r"features.0.weight has 2 values that are NaN or infinite") as caught:
        build_network(Backbone(name="mini_cnn", weights=saved(source, tmp_path / "x.pth")), 3, 9, 28)
    assert len(caught.value.problems) == 1


def test_variances_below_zero_are_refused(tmp_path):
    source = build("mini_cnn")
    source.get_buffer("features.1.running_var")[0] = -1
    with pytest.raises(WeightsError, match=r"features.1.running_var has variances below 0"):
        build_network(Backbone(name="mini_cnn", weights=saved(source, tmp_path / "x.pth")), 3, 9, 28)


# --- timm's names


@pytest.mark.parametrize(
    ("name", "model"),
    [("efficientnet_b0", "efficientnet_b0"), ("efficientnet_lite0", "tf_efficientnet_lite0")],
)
def test_timms_efficientnets_become_ours_by_name_as_by_order(name, model, tmp_path):
    """The two ways agree on every tensor, and the networks on every logit."""
    torch.manual_seed(0)
    theirs = timm.create_model(model, pretrained=False).eval()
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.ndim == 1:
                tensor += 0.1 * torch.rand_like(tensor)
    entry = backbone_entry(name)
    ours, report = build_network(
        Backbone(name=name, weights=saved(theirs, tmp_path / "timm.pth"), adapt_stem=False), 3, 1000, 65
    )
    assert (report.mapping, report.resampled) == ("name", [])
    assert report.new == report.unused == ["classifier.1.weight", "classifier.1.bias"]
    by_name, target = rename_timm(theirs.state_dict()), ours.state_dict()
    by_order = map_keys(theirs.state_dict(), target, entry.head_of(ours)).tensors
    assert list(by_name) == list(target)
    assert all(by_name[key] is by_order[key] or torch.equal(by_name[key], by_order[key]) for key in target)
    ours.classifier[1].load_state_dict(theirs.classifier.state_dict())
    images = torch.randn(2, 3, 65, 65)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs(images), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_our_own_names_are_not_changed(name):
    names = list(build(name).state_dict())
    assert list(rename_timm(dict.fromkeys(names, torch.zeros(1)))) == names
