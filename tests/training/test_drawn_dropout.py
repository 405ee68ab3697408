"""What is dropped: as often as torch drops it, and by the place of an image alone."""

import copy

import pytest
import torch
from scipy import stats
from torch import nn
from torchvision.ops import StochasticDepth

from tests.training.helpers import data, trainer
from visionforge import ImageClassifier
from visionforge.training.drawn_dropout import DrawnDropout, _Drawn

LAYERS = {
    "values": (nn.Dropout(0.3), (64, 6, 5)),
    "one axis": (nn.Dropout1d(0.3), (64, 30, 5)),
    "channels": (nn.Dropout2d(0.3), (64, 30, 4, 4)),
    "volumes": (nn.Dropout3d(0.3), (64, 30, 2, 3, 4)),
    "branches": (StochasticDepth(0.3, "row"), (2000, 3, 4, 4)),
}


def drawn(*layers: nn.Module) -> tuple[nn.Sequential, DrawnDropout]:
    network = nn.Sequential(*copy.deepcopy(layers)).train()
    return network, DrawnDropout(network)


@pytest.mark.parametrize("name", LAYERS)
def test_as_much_is_dropped_as_torch_drops_and_the_rest_is_made_up_for(name):
    layer, shape = LAYERS[name]
    network, dropout = drawn(layer)
    dropout.begin_step(3, torch.arange(shape[0]))
    out, theirs = network(torch.ones(shape)), layer.train()(torch.ones(shape))
    assert sorted(out.unique().tolist()) == pytest.approx(sorted(theirs.unique().tolist()))  # 0 and 1 / 0.7
    units = out.flatten(2)[..., 0] if name in ("one axis", "channels", "volumes") else out.flatten(1)
    units = units[:, 0] if name == "branches" else units
    assert stats.binomtest(int((units == 0).sum()), units.numel(), 0.3).pvalue > 0.001
    whole = {"values": out[..., :1], "branches": out.flatten(1)}.get(name, out.flatten(2))
    assert bool((whole == whole[..., :1]).all())


@pytest.mark.parametrize("name", LAYERS)
def test_processes_drop_what_one_drops(name):
    layer, shape = LAYERS[name]
    network, dropout = drawn(nn.Identity(), layer, layer)
    assert network[1] is network[2]  # a layer that a network has twice
    values = torch.randn(shape)
    dropout.begin_step(3, torch.arange(100, 100 + len(values)))
    whole = network(values)
    dropout.begin_step(3, torch.arange(101, 100 + len(values), 2))
    assert torch.equal(network(values[1::2]), whole[1::2])
    dropout.begin_step(4, torch.arange(100, 100 + len(values)))
    assert not torch.equal(network(values), whole)


def test_layers_and_rows_of_an_image_differ():
    network, dropout = drawn(nn.Dropout(0.5), nn.Dropout(0.5))
    dropout.begin_step(0, torch.arange(4))
    one, two = (layer(torch.ones(4, 500)) for layer in network)
    assert 0.4 < float((one == two).float().mean()) < 0.6
    rows = network[0](torch.ones(12, 500)).view(4, 3, 500)  # such as three patches of each image
    assert torch.equal(rows[:, 0], one)
    assert 0.4 < float((rows[:, 0] == rows[:, 1]).float().mean()) < 0.6


def test_evaluation_and_foreign_rows_are_left_to_the_layer():
    network, dropout = drawn(nn.Dropout(0.5))
    values = torch.ones(7, 50)
    torch.manual_seed(0)
    before = network(values)  # no step has begun
    dropout.begin_step(0, torch.arange(4))
    torch.manual_seed(0)
    assert torch.equal(network(values), before)
    assert torch.equal(network.eval()(values), values)
    network, dropout = drawn(nn.Dropout(1.0), nn.Dropout(0.0))
    dropout.begin_step(0, torch.arange(4))
    assert torch.equal(network(torch.ones(4, 3)), torch.zeros(4, 3))


def test_a_batch_is_written_where_a_graph_reads_it():
    network, dropout = drawn(nn.Dropout(0.5))
    dropout.begin_step(0, torch.arange(8))
    held = dropout._step.keys
    first = network(torch.ones(8, 9))
    dropout.begin_step(0, torch.arange(4))
    dropout.begin_step(1, torch.arange(8))
    assert dropout._step.keys is held
    assert not torch.equal(network(torch.ones(8, 9)), first)


def test_the_network_has_its_own_layers_before_and_after_a_training():
    seen = []

    class Looking(ImageClassifier):
        def training_step(self, batch, batch_idx):
            seen.append([type(m) for m in self.network.modules() if isinstance(m, nn.Dropout | _Drawn)])
            return super().training_step(batch, batch_idx)

    classifier = Looking(backbone={"name": "mini_cnn", "pretrained": False, "dropout": 0.4})
    for _ in range(2):
        trainer(1).fit(classifier, datamodule=data())
        assert [type(m) for m in classifier.network.modules() if isinstance(m, nn.Dropout | _Drawn)] == [nn.Dropout]
    assert all(kinds == [_Drawn, nn.Dropout] for kinds in seen)
    assert len(seen) > 1


@pytest.mark.slow
def test_branches_of_timm_are_dropped_by_image():
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", pretrained=False, num_classes=3, drop_path_rate=0.5).train()
    dropout = DrawnDropout(network)
    assert sum(isinstance(m, _Drawn) for m in network.modules()) > 0
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    images = torch.randn(8, 3, 32, 32)
    dropout.begin_step(1, torch.arange(8))
    whole = network(images)
    dropout.begin_step(1, torch.arange(1, 8, 2))
    torch.testing.assert_close(network(images[1::2]), whole[1::2])
