"""Volumes in the training module: the same training, prediction, views and mixing, with one dimension more."""

import copy

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from visionforge import ImageClassifier, TaskSpec
from visionforge.augmentations import average_over_views, cutmix, mixup
from visionforge.config.schema import Backbone, Finetuning
from visionforge.data.augment import normalise
from visionforge.data.info import NO_CHANGES
from visionforge.errors import DataError, SettingsError, WeightsError
from visionforge.evaluation.explain import explain, overlay
from visionforge.inference.contract import contract_of
from visionforge.inference.exported import ExportedClassifier
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.mixup import MixDraw, draw_mix, mix_images
from visionforge.training.pixels import as_batch
from visionforge.training.tta import shift, tta_views, view_functions

ALL = NO_CHANGES.model_copy(update={"hflip": True, "vflip": True, "dflip": True, "rotation": "any"})
MINI = Backbone(name="mini_cnn", pretrained=False)


def spec(resolution: int = 16, **changes) -> TaskSpec:
    return TaskSpec(classes=2, channels=1, spatial_dims=3, resolution=resolution, **changes)


def loader(resolution: int = 16, count: int = 12, batch: int = 4) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    voxels = torch.randint(0, 256, (count, 1, *(resolution,) * 3), dtype=torch.uint8, generator=generator)
    return DataLoader(TensorDataset(voxels, torch.arange(count) % 2), batch_size=batch)


def train(model: ImageClassifier, batches: DataLoader, **flags) -> pl.Trainer:
    asked = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False, **flags}
    trainer = pl.Trainer(enable_checkpointing=False, enable_model_summary=False, **asked)
    trainer.fit(model, batches, batches)
    return trainer


def built(backbone: Backbone = MINI, **changes) -> ImageClassifier:
    model = ImageClassifier(backbone, spec=spec(**changes))
    model.configure_model()
    return model


# --- training and prediction


@pytest.mark.parametrize(
    ("name", "convolution"), [("mini_cnn", "3d"), ("mini_cnn", "acs"), ("mobilenet_v3_small", "3d")]
)
def test_a_checkpoint_predicts_what_the_trained_network_did(name, convolution, tmp_path):
    pl.seed_everything(1, verbose=False)
    backbone = Backbone(name=name, pretrained=False, volume_convolution=convolution)
    model = ImageClassifier(backbone, mixup=MixUp(alpha=0.4, cutmix_alpha=1.0), spec=spec())
    model.configure_model()
    before = copy.deepcopy(model.state_dict())
    batches = loader()
    trainer = train(model, batches)
    assert all(not torch.equal(value, before[key]) for key, value in model.state_dict().items() if "weight" in key)
    trainer.save_checkpoint(tmp_path / "volumes.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "volumes.ckpt")
    assert loaded.settings.backbone.volume_convolution == convolution
    for images, _ in batches:
        expected, averaged = model.predict_probabilities(images)
        found, again = loaded.predict_probabilities(images)
        assert torch.equal(found, expected)
        assert again is None
        assert averaged is None, "nothing may be changed, and a voxel is more than a 28th"
    predicted = torch.cat(trainer.predict(loaded, batches))
    assert predicted.shape == (12, 2)
    assert trainer.test(loaded, batches, verbose=False)[0]["test/loss"] > 0


def test_the_network_learns_what_volumes_show():
    pl.seed_everything(1, verbose=False)
    generator = torch.Generator().manual_seed(0)
    voxels = torch.randint(0, 100, (32, 1, 16, 16, 16), dtype=torch.uint8, generator=generator)
    labels = torch.arange(32) % 2
    voxels[labels == 1, :, :8] += 100  # nearer slices are brighter
    voxels[labels == 0, :, 8:] += 100  # or farther ones, so that no slice alone tells
    batches = DataLoader(TensorDataset(voxels, labels), batch_size=8)
    model = ImageClassifier(MINI, optimizer="adamw", mixup={"alpha": 0.0}, spec=spec())
    train(model, batches, max_epochs=6)
    found, _ = model.predict_probabilities(voxels)
    assert bool((found.argmax(dim=1) == labels).float().mean() > 0.9)


def test_two_trainings_are_the_same_in_strict_mode():
    states = []
    for _ in range(2):
        pl.seed_everything(3, verbose=False)
        model = ImageClassifier(MINI, spec=spec())
        train(model, loader(), deterministic=True)
        states.append(model.state_dict())
    torch.use_deterministic_algorithms(False)
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_stages_are_frozen_and_weights_averaged():
    model = ImageClassifier(MINI, finetuning=Finetuning(freeze_epochs=1), averaging="ema", spec=spec())
    model.configure_model()
    assert model.network is not None
    before = copy.deepcopy(model.network.state_dict())
    train(model, loader())
    after = model.network.state_dict()
    changes = {key: float((after[key] - before[key]).abs().max()) for key in ("features.8.weight", "head.1.weight")}
    assert changes["features.8.weight"] < 1e-7, "an average of equal values may round"
    assert changes["head.1.weight"] > 1e-5


def test_compiled_networks_give_the_same():
    model = built().eval()
    images = torch.randn(2, 1, 16, 16, 16)
    compiled = torch.compile(model.network, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_of_other_volumes_or_kernels_is_refused(tmp_path):
    model = built()
    trainer = train(model, loader())
    trainer.save_checkpoint(tmp_path / "volumes.ckpt")
    stored = torch.load(tmp_path / "volumes.ckpt", weights_only=True)
    planar = ImageClassifier(Backbone(name="mini_cnn", pretrained=False, volume_convolution="acs"), spec=spec())
    with pytest.raises(SettingsError, match="volume_convolution: acs asked for, the checkpoint has 3d"):
        planar.restore(stored)
    images = ImageClassifier(MINI, spec=TaskSpec(classes=2, channels=1, resolution=16))
    with pytest.raises(SettingsError, match="has spatial_dims 2, the network was made for 3"):
        images.restore(stored)
    with pytest.raises(SettingsError, match="has spatial_dims 2"):
        model.bind(TaskSpec(classes=2, channels=1, resolution=16))
    small = {"x": torch.zeros(10)}
    with pytest.raises(WeightsError, match="its tensors are not those of mini_cnn"):
        ImageClassifier(MINI, spec=spec()).build_for(small)


def test_the_convolution_of_volumes_is_refused_for_images():
    model = ImageClassifier(
        Backbone(name="mini_cnn", pretrained=False, volume_convolution="acs"), spec=TaskSpec(classes=2, channels=1)
    )
    with pytest.raises(SettingsError, match="acs is for volumes, the data are images"):
        model.configure_model()


# --- what goes in


def test_volumes_as_people_have_them():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 16), dtype=np.uint8)
    expected = torch.from_numpy(pixels)[:, None]
    for given in (pixels, pixels[..., None], expected, expected[:, 0]):
        assert torch.equal(as_batch(given, spec()), expected)
    colour = TaskSpec(classes=2, channels=3, spatial_dims=3, resolution=16)
    assert torch.equal(as_batch(pixels, colour), expected.expand(-1, 3, -1, -1, -1))
    coloured = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 16, 3), dtype=np.uint8)
    assert torch.equal(as_batch(coloured, colour), torch.from_numpy(coloured).permute(0, 4, 1, 2, 3))


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ((2, 16, 16), r"\(2, 16, 16\) of uint8; allowed: uint8 or normalised float \(N, 1, 16, 16, 16\), uint8 \(N, D"),
        ((2, 16, 16, 8), r"\(2, 16, 16, 8\); the network was trained on \(N, 1, 16, 16, 16\)"),
        ((2, 16, 16, 16, 3), r"the network was trained on"),
        ((2, 1, 1, 16, 16, 16), r"NumPy array \(N, D, H, W, C\)"),
    ],
)
def test_other_shapes_are_told(shape, complaint):
    with pytest.raises(DataError, match=complaint):
        built().predict_probabilities(np.zeros(shape, np.uint8))


def test_images_are_refused_by_a_network_for_volumes_and_the_other_way_round():
    with pytest.raises(DataError, match="allowed"):
        built().predict_probabilities(torch.zeros(2, 1, 16, 16))
    flat = ImageClassifier(MINI, spec=TaskSpec(classes=2, channels=1, resolution=16))
    flat.configure_model()
    with pytest.raises(DataError, match=r"allowed: uint8 or normalised float \(N, 1, 16, 16\)"):
        flat.predict_probabilities(torch.zeros(2, 1, 16, 16, 16))


def test_voxels_are_normalised():
    voxels = torch.randint(0, 256, (2, 3, 4, 5, 6), dtype=torch.uint8)
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    each = [(voxels[:, c].double() / 255 - mean[c]) / std[c] for c in range(3)]
    torch.testing.assert_close(normalise(voxels, mean, std).double(), torch.stack(each, dim=1), atol=1e-5, rtol=1e-5)
    grey = normalise(voxels[:, :1], (0.1,) * 3, (0.2,) * 3)
    torch.testing.assert_close(grey[:, 2].double(), each[0], atol=1e-5, rtol=1e-5)


def test_a_map_shows_where_the_evidence_of_a_volume_lies():
    model = built().eval()
    maps = explain(model, torch.randint(0, 256, (2, 1, 16, 16, 16), dtype=torch.uint8))
    assert maps.shape == (2, 16, 16, 16)
    assert maps.min() >= 0
    assert maps.max() <= 1
    picture = overlay(np.zeros((1, 16, 16, 16), np.uint8), maps[0].numpy(), 32)
    assert picture.shape == (32, 32 * 50 // 16, 3)  # three slices of 16, two lines between them


# --- views


def test_flags_choose_the_views_of_volumes():
    def names(flags, mode="full", resolution=28):
        return list(view_functions(flags, mode, resolution, 3))

    flips, turns = ["hflip", "vflip", "dflip"], ["rotate 90", "rotate 180", "rotate 270"]
    shifts = [f"shift {where}" for where in ("right", "left", "down", "up", "deeper", "shallower")]
    assert names(ALL) == ["identity", *flips, *turns, *shifts]
    assert names(ALL, "light") == ["identity", *flips]
    assert names(ALL, "off") == ["identity"]
    assert names(ALL.model_copy(update={"dflip": False}), "light") == ["identity", "hflip", "vflip"]
    assert names(ALL, resolution=27) == ["identity", *flips, *turns]
    assert names(NO_CHANGES) == ["identity", *shifts]
    assert names(NO_CHANGES, "light") == ["identity", "shift right", "shift left"]
    assert "dflip" not in view_functions(ALL, "full", 28), "of images"


def test_views_of_volumes_are_exact():
    volumes = torch.rand(2, 1, 28, 28, 28)
    views = dict(zip(view_functions(ALL, "full", 28, 3), tta_views(volumes, ALL), strict=True))
    assert torch.equal(views["identity"], volumes)
    assert torch.equal(views["hflip"], volumes[..., range(27, -1, -1)])
    assert torch.equal(views["vflip"], volumes[..., range(27, -1, -1), :])
    assert torch.equal(views["dflip"], volumes[:, :, range(27, -1, -1)])
    for depth in range(28):  # every slice turns as an image does
        assert torch.equal(views["rotate 90"][:, :, depth], torch.rot90(volumes[:, :, depth], 1, (-2, -1)))
        assert torch.equal(views["shift right"][:, :, depth], shift(volumes[:, :, depth], 1, 0))
        assert torch.equal(views["shift up"][:, :, depth], shift(volumes[:, :, depth], 0, -1))
    assert torch.equal(views["shift deeper"][:, :, 1:], volumes[:, :, :-1])
    assert torch.equal(views["shift deeper"][:, :, 0], volumes[:, :, 0])
    assert torch.equal(views["shift shallower"][:, :, :-1], volumes[:, :, 1:])
    assert torch.equal(views["shift shallower"][:, :, -1], volumes[:, :, -1])


@pytest.mark.parametrize("mode", ["light", "full"])
def test_probabilities_are_averaged_over_the_views_of_volumes(mode):
    model = ImageClassifier(MINI, tta=mode, spec=spec(28, flags=ALL))
    model.configure_model()
    volumes = torch.rand(2, 1, 28, 28, 28)
    alone, averaged = model.predict_probabilities(volumes)
    assert model.spec is not None
    views = [model.predict_probabilities(view, tta=False)[0] for view in tta_views(volumes, model.spec.flags, mode)]
    assert len(views) == {"light": 4, "full": 13}[mode]
    torch.testing.assert_close(alone, views[0])
    torch.testing.assert_close(averaged, torch.stack(views).mean(dim=0))
    fewer = ALL.model_copy(update={"dflip": False})
    for flags, same in ((ALL, True), (fewer, False)):
        found = average_over_views(lambda given: model.predict_probabilities(given, tta=False)[0], volumes, flags, mode)
        assert torch.allclose(found, averaged, atol=1e-7) == same


def test_what_is_exported_gives_the_same():
    model = ImageClassifier(MINI, spec=spec(28, flags=ALL))
    model.configure_model()
    assert model.spec is not None
    model.spec = model.spec.model_copy(update={"flags": ALL})
    contract = contract_of(model, "uint8", None, None, None)
    assert contract.shape == ("batch", 1, 28, 28, 28)
    assert "dflip" in contract.views
    assert "largest middle cube in millimetres out and resample it to 28×28×28" in contract.as_text()["input"]["resize"]
    volumes = torch.randint(0, 256, (2, 1, 28, 28, 28), dtype=torch.uint8)
    _, expected = model.predict_probabilities(volumes)
    torch.testing.assert_close(ExportedClassifier(model, contract)(volumes), expected, atol=1e-5, rtol=1e-5)


# --- mixing


def test_mixup_of_volumes_is_the_convex_combination():
    volumes = torch.rand(3, 2, 4, 5, 6, dtype=torch.float64)
    found = mix_images(volumes, MixDraw(torch.tensor([0.25, 0.5, 1.0]), torch.tensor([1, 2, 0])))
    torch.testing.assert_close(found[0], 0.25 * volumes[0] + 0.75 * volumes[1])
    torch.testing.assert_close(found[1], 0.5 * volumes[1] + 0.5 * volumes[2])
    assert torch.equal(found[2], volumes[2])


@pytest.mark.parametrize("resolution", [9, 16])
def test_lambda_of_cutmix_is_the_share_of_the_voxels_that_stay(resolution):
    count = 32
    values = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(-1, 1, *(resolution,) * 3)
    settings = MixUp(alpha=0.0, cutmix_alpha=1.0, per_image=True)
    for seed in range(5):
        draw = draw_mix(count, settings, resolution, seed, spatial_dims=3)
        assert draw is not None
        assert draw.boxes is not None
        assert draw.boxes.shape == (count, 6)
        found = mix_images(values, draw)
        for index in range(count):
            pasted = found[index, 0] != index
            if int(draw.partner[index]) == index:
                continue
            assert float(draw.lam[index]) == pytest.approx(1 - float(pasted.double().mean()), abs=1e-6)
            assert bool((found[index, 0][pasted] == float(draw.partner[index])).all())
            places = pasted.nonzero()
            if len(places):  # a box, and the one that was drawn
                low, high = places.min(dim=0).values, places.max(dim=0).values + 1
                assert int((high - low).prod()) == len(places)
                assert torch.equal(torch.cat([low, high]), draw.boxes[index])


def test_boxes_have_the_volume_that_was_drawn():
    whole = [draw_mix(1, MixUp(alpha=0.0, cutmix_alpha=1.0), 1000, seed, 3) for seed in range(400)]
    checked = 0
    for seed, draw in enumerate(whole):
        assert draw is not None
        assert draw.boxes is not None
        low, high = draw.boxes[0, :3], draw.boxes[0, 3:]
        if bool((low > 0).all()) and bool((high < 1000).all()):  # not clipped
            rng = np.random.default_rng(seed)
            rng.permutation(1)
            rng.random(1)
            kept = float(rng.beta(1.0, 1.0))
            assert float(draw.lam[0]) == pytest.approx(kept, abs=0.005)
            assert int((high - low).max() - (high - low).min()) <= 1, "a cube"
            checked += 1
    assert checked > 10


def test_functions_mix_volumes():
    volumes, targets = torch.rand(4, 1, 8, 8, 8), torch.tensor([0, 1, 2, 0])
    mixed, shares = mixup(volumes, targets, alpha=1.0, classes=3, seed=1)
    assert mixed.shape == volumes.shape
    assert not torch.equal(mixed, volumes)
    cut, cut_shares = cutmix(volumes, targets, alpha=1.0, classes=3, seed=2)
    assert cut.shape == volumes.shape
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(cut_shares.sum(dim=1), torch.ones(4))
    with pytest.raises(ValueError, match=r"volumes \(N, C, R, R, R\)"):
        cutmix(volumes[..., :7], targets, alpha=1.0, classes=3)


def test_kernels_lie_channels_last():
    for convolution in ("3d", "acs"):
        model = built(Backbone(name="mini_cnn", pretrained=False, volume_convolution=convolution))
        assert model.network is not None
        weight = model.network.get_parameter("features.4.weight")
        order = torch.channels_last_3d if convolution == "3d" else torch.channels_last
        assert weight.is_contiguous(memory_format=order)
        assert isinstance(weight, nn.Parameter)
