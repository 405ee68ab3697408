"""What a checkpoint becomes without Lightning says what its module says, bit by bit, and is as strict."""

import copy
from pathlib import Path

import pytest
import torch

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.errors import VisionForgeError
from visionforge.training.loading import load_classifier, load_network
from visionforge.training.trained_network import TrainedNetwork

KINDS = {  # of networks: those whose outputs, decisions or state are made differently
    "classes": {"model__backbone__dropout": 0.2},
    "labels": {"data__synthetic__task": "multi-label"},
    "grades": {"data__synthetic__task": "ordinal"},
    "masks": {"data__synthetic__task": "segmentation", "model__backbone__name": "resnet18"},
    "boxes": {"data__synthetic__task": "detection", "model__backbone__name": "resnet18", "data__resolution": 64},
    "resized": {"data__resize__size": 40},
}


def checkpoint_of(outputs: Path, **changes: object) -> Path:
    assert main(["fit", *flags(trainer__default_root_dir=outputs, trainer__max_epochs=1, **changes)]) == 0
    (run,) = run_folders(outputs)
    return run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("kind", [pytest.param(name, marks=pytest.mark.slow) for name in KINDS])
def test_it_says_what_the_module_says(tmp_path, kind):
    checkpoint = checkpoint_of(tmp_path, **KINDS[kind])
    module, network = load_classifier(checkpoint), load_network(checkpoint)
    assert list(network.state_dict()) == list(module.state_dict())
    for name in ("spec", "settings", "calibration", "heads", "members", "inputs", "transfer"):
        assert getattr(network, name) == getattr(module, name), name
    assert (network.thresholds is None) == (module.thresholds is None)
    spec = module.spec
    images = torch.randint(0, 256, (3, spec.channels, *[spec.resolution] * spec.spatial_dims), dtype=torch.uint8)
    with torch.inference_mode():
        for one, other in zip(module.evaluated(images), network.evaluated(images), strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other)


def test_it_is_no_module_of_lightning(checkpoint):
    network = load_network(checkpoint)
    assert type(network).__mro__[1:3] == (TrainedNetwork.__base__, TrainedNetwork.__base__.__base__)
    assert not hasattr(network, "trainer")
    assert not network.training


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": {"name": "resnet18"}}, "tensors"),
        ({"tta_weight": 7.0}, "tta_weight"),
        ({"flavour": 1}, "flavour"),
        ({"spec": {"classes": 3, "resolution": -1}}, "spec.resolution"),
        ({"members": [1]}, "members"),
        ({"heads": [{"name": "none"}]}, "heads"),
    ],
)
def test_what_does_not_fit_is_refused_as_by_the_module(checkpoint, tmp_path, change, said):
    content = torch.load(checkpoint, weights_only=True)
    changed = copy.deepcopy(content)
    changed["hyper_parameters"] |= change
    torch.save(changed, tmp_path / "changed.ckpt")
    for load in (load_classifier, load_network):
        with pytest.raises(VisionForgeError) as raised:
            load(tmp_path / "changed.ckpt")
        assert said in str(raised.value), load
