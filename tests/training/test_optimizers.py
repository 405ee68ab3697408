"""Parameter groups hold what they should, and Muon does what its authors say."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from visionforge import ImageClassifier, ImageDataModule
from visionforge.config.schema import Backbone, Optimizer
from visionforge.models.build import build_network
from visionforge.training.muon import UPDATE_RMS, Muon, orthogonalise
from visionforge.training.parameter_groups import fused, parameter_groups

HEAD, STEM = ("head.",), "features.0.weight"


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network(Backbone(name="mini_cnn", pretrained=False), 3, 4, 16)[0]


def names_by_group(network, settings, rate=1.0):
    named = {id(p): name for name, p in network.named_parameters()}
    groups = parameter_groups(network.named_parameters(), HEAD, STEM, settings, rate)
    return groups, [{named[id(p)] for p in group["params"]} for group in groups]


def test_plain_settings_are_one_group(network):
    groups, names = names_by_group(network, Optimizer())
    assert len(groups) == 1
    assert names[0] == {name for name, _ in network.named_parameters()}


def test_norms_and_biases_can_be_spared_the_decay(network):
    settings = Optimizer(decay_norm_bias=False, weight_decay=0.1)
    groups, names = names_by_group(network, settings)
    spared = {name for group, members in zip(groups, names, strict=True) for name in members if "weight_decay" in group}
    assert spared == {name for name, p in network.named_parameters() if p.ndim == 1}
    optimizer = settings.build(groups)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.1]


def test_backbone_rate_leaves_the_classifier_alone(network):
    groups, names = names_by_group(network, Optimizer(learning_rate=0.1), 0.2)
    rates = {name: group["lr"] for group, members in zip(groups, names, strict=True) for name in members}
    assert rates["head.1.weight"] == rates["head.1.bias"] == 0.1
    assert {rate for name, rate in rates.items() if not name.startswith("head.")} == {0.1 * 0.2}
    assert groups[0]["lr"] == 0.1, "the first group's rate is the one that is logged"


def test_muon_takes_hidden_weights_only(network):
    groups, names = names_by_group(network, Optimizer(name="muon"))
    (hidden,) = (members for group, members in zip(groups, names, strict=True) if group["orthogonal"])
    assert hidden == {"features.4.weight", "features.8.weight"}
    assert sum(map(len, names)) == len(list(network.parameters()))


def test_each_name_builds_its_optimiser(network):
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("muon", Muon)):
        read = {"momentum": 0.8, "beta2": 0.95, "nesterov": name != "adamw"}
        settings = Optimizer(
            name=name, **{key: value for key, value in read.items() if name in Optimizer.family.readers(key)}
        )
        optimizer = settings.build(names_by_group(network, settings)[0])
        assert type(optimizer) is kind
        group = optimizer.param_groups[0]
        assert group.get("momentum", group.get("betas", (0,))[0]) == 0.8
        assert group.get("nesterov", False) == (name != "adamw")
        assert group.get("beta2", group.get("betas", (0, 0.95))[1]) == 0.95


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (64, 576), (5, 5)])
def test_orthogonalised_matrix_keeps_its_singular_vectors(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix.float()).double()
    diagonal = u.mT @ found @ vt.mT
    kept = values > 0.05 * values.max()
    assert (torch.diag(diagonal)[kept] > 0.5).all()
    assert (torch.diag(diagonal)[kept] < 1.3).all()
    off = diagonal - torch.diag(torch.diag(diagonal))
    assert off.abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(64, 576), (576, 64), (20, 20), (1, 9)])
def test_products_of_the_gram_matrix_equal_the_iteration_itself(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 2, shape[1])
    x = matrix.double() if shape[0] <= shape[1] else matrix.double().mT
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.mT
        x = (3.4445 * torch.eye(len(gram)).double() - 4.775 * gram + 2.0315 * gram @ gram) @ x
    reference = x if shape[0] <= shape[1] else x.mT
    torch.testing.assert_close(orthogonalise(matrix).double(), reference, atol=2e-3, rtol=1e-2)


def test_muon_equals_a_loop_written_here():
    torch.manual_seed(0)
    convolution, vector = nn.Parameter(torch.randn(6, 3, 2, 2)), nn.Parameter(torch.randn(5))
    mine = [convolution.detach().clone().double(), vector.detach().clone().double()]
    lr, beta, beta2, decay = 0.03, 0.9, 0.95, 0.1
    groups = [{"params": [convolution], "orthogonal": True}, {"params": [vector]}]
    optimizer = Muon(groups, lr, beta, True, beta2, decay)
    velocity, mean, square = torch.zeros(6, 12).double(), torch.zeros(5).double(), torch.zeros(5).double()
    for step in range(1, 6):
        gradients = [torch.randn(6, 3, 2, 2), torch.randn(5)]
        for p, g in zip((convolution, vector), gradients, strict=True):
            p.grad = g.clone()
        optimizer.step()
        flat = gradients[0].double().reshape(6, 12)
        velocity = beta * velocity + (1 - beta) * flat
        direction = orthogonalise((beta * velocity + (1 - beta) * flat).float()).double()
        mine[0] = mine[0] * (1 - lr * decay) - lr * UPDATE_RMS * 12**0.5 * direction.view(6, 3, 2, 2)
        g = gradients[1].double()
        mean, square = beta * mean + (1 - beta) * g, beta2 * square + (1 - beta2) * g * g
        update = (mean / (1 - beta**step)) / ((square / (1 - beta2**step)).sqrt() + 1e-8)
        mine[1] = mine[1] * (1 - lr * decay) - lr * update
    torch.testing.assert_close(convolution.double(), mine[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vector.double(), mine[1], atol=1e-5, rtol=1e-5)


def test_the_part_left_to_adamw_equals_torchs():
    torch.manual_seed(0)
    start = torch.randn(7)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one = Muon([{"params": [ours]}], 0.01, 0.9, True, 0.99, 0.1)
    two = torch.optim.AdamW([theirs], 0.01, (0.9, 0.99), 1e-8, 0.1)
    for _ in range(10):
        gradient = torch.randn(7)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        two.step()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_matrices_move_as_torchs_muon_moves_them():
    """torch.optim.Muon with the same scaling computes in bfloat16, hence the tolerance."""
    torch.manual_seed(0)
    start = torch.randn(16, 40)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one = Muon([{"params": [ours], "orthogonal": True}], 0.01, 0.95, True, 0.99, 0.1)
    two = torch.optim.Muon([theirs], 0.01, 0.1, 0.95, True, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        gradient = torch.randn(16, 40)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        two.step()
    moved, reference = ours.detach() - start, theirs.detach() - start
    assert torch.nn.functional.cosine_similarity(moved.flatten(), reference.flatten(), dim=0) > 0.999
    assert float(moved.norm() / reference.norm()) == pytest.approx(1, abs=0.02)


def test_vectors_are_not_orthogonalised():
    with pytest.raises(ValueError, match="matrices"):
        Muon([{"params": [nn.Parameter(torch.zeros(3))], "orthogonal": True}], 0.1)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("late", [False, True])
def test_one_kernel_for_all_weights_moves_them_as_one_each(network, name, late, monkeypatch):
    """Also those that are frozen at first, of which SGD has no momentum yet."""
    settings = Optimizer(name=name, learning_rate=0.05, weight_decay=0.01)
    states = []
    for fuse in (True, None):
        monkeypatch.setattr("visionforge.training.parameter_groups.fused", lambda groups, fuse=fuse: fuse)
        copied = copy.deepcopy(network)
        optimizer = settings.build(names_by_group(copied, settings)[0])
        generator = torch.Generator().manual_seed(1)
        for step in range(6):
            for place, p in enumerate(copied.parameters()):
                gradient = torch.randn(p.shape, generator=generator)
                p.grad = None if late and place < 4 and step < 3 else gradient
            optimizer.step()
        states.append(copied.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-5, atol=1e-6, msg=key)


def test_weights_on_the_processor_are_updated_in_one_kernel_and_others_as_torch_likes(network):
    groups = names_by_group(network, Optimizer())[0]
    assert Optimizer(name="adamw").build(groups).defaults["fused"] is True
    network.to("meta")
    assert fused([{"params": list(network.parameters())}]) is None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_front_of_one_kernel(precision):
    """Lightning takes a fused optimiser for one that scales gradients itself, and would refuse."""
    moved = []
    for clip in (None, 1e-4):
        pl.seed_everything(1)
        trainer = pl.Trainer(
            max_steps=1, accelerator="cpu", precision=precision, gradient_clip_val=clip, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, limit_val_batches=0, enable_model_summary=False,
        )  # fmt: skip
        model = ImageClassifier(backbone="mini_cnn", optimizer={"name": "sgd", "weight_decay": 0, "learning_rate": 0.5})
        data = ImageDataModule("synthetic", synthetic={"train": 16, "val": 8, "test": 8}, batch_size=16)
        model.bind(data.spec)
        model.configure_model()
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        trainer.fit(model, datamodule=data)
        moved.append(float((torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm()))
    assert moved[0] > 1e-2
    assert 0 < moved[1] < 1e-3


def test_a_checkpoint_of_before_goes_on_as_it_was(network):
    """Its groups say that there was no kernel for all, which they do not say of new ones."""
    settings = Optimizer(name="adamw")
    groups = names_by_group(network, settings)[0]
    old = torch.optim.AdamW(groups, 0.1)
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    old.step()
    new = settings.build(groups)
    new.load_state_dict(old.state_dict())
    new.step()
    assert not new.param_groups[0]["fused"]
