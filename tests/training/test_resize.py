"""A network reads another size than the images have: in training, prediction, views, maps, and from its checkpoint."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from visionforge import ImageClassifier, ImageDataModule, TaskSpec
from visionforge.config.schema import Backbone
from visionforge.data.augment import normalise
from visionforge.data.info import NO_CHANGES
from visionforge.errors import SettingsError
from visionforge.evaluation.explain import explain
from visionforge.inference.contract import contract_of, read_contract
from visionforge.inference.exported import ExportedClassifier
from visionforge.models.registry import backbone_entry
from visionforge.models.transfer import TransferReport
from visionforge.training.compatibility import check_compatible
from visionforge.training.normalisation import with_constants_of

MINI = Backbone(name="mini_cnn", pretrained=False)
RESNET = Backbone(name="resnet18", pretrained=False)
ALL = NO_CHANGES.model_copy(update={"hflip": True, "vflip": True, "rotation": "any"})


def built(resize=None, backbone: Backbone = MINI, resolution: int = 28, **more) -> ImageClassifier:
    torch.manual_seed(0)
    spec = TaskSpec(classes=3, resolution=resolution, mean=(0.4,) * 3, std=(0.2,) * 3, flags=ALL, resize=resize or {})
    model = ImageClassifier(backbone, spec=spec, **more)
    model.configure_model()
    return model.eval()


def pictures(count: int = 4, channels: int = 3, resolution: int = 28) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, resolution, resolution), dtype=torch.uint8, generator=generator)


def sizes_read(model: ImageClassifier) -> list[tuple[int, ...]]:
    """Return a list that gets the sides of every batch that the network is given."""
    found: list[tuple[int, ...]] = []
    model.network.register_forward_pre_hook(lambda module, given: found.append(tuple(given[0].shape[2:])))
    return found


def data(**more) -> ImageDataModule:
    synthetic = {"channels": 1, "train": 8, "val": 4, "test": 4}
    return ImageDataModule("synthetic", batch_size=4, synthetic=synthetic, **more)


def trainer(**more) -> pl.Trainer:
    flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, **more}
    return pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **flags)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 40])
def test_the_network_is_given_what_torchvision_makes_of_the_images(size, mode):
    model, images = built({"size": size, "mode": mode}), pictures()
    plain = built(resolution=size)  # the same random weights
    given, way = normalise(images, (0.4,) * 3, (0.2,) * 3), transforms.InterpolationMode(mode)
    resized = transforms.resize(given, [size, size], way)
    with torch.no_grad():
        torch.testing.assert_close(model(images), plain(resized), atol=1e-5, rtol=0)
        assert not torch.allclose(model(images), built()(images), atol=1e-3)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_the_backbone_is_that_of_the_size_it_reads():
    assert built({"size": 112}, RESNET).network.conv1.stride == (2, 2)
    assert built(None, RESNET).network.conv1.stride == (1, 1)


def test_views_are_those_of_the_images_and_the_network_reads_all_of_them_in_its_size():
    model = built({"size": 56}, tta="full")
    read = sizes_read(model)
    model.predict_probabilities(pictures())
    assert read == [(56, 56)]
    shifted = contract_of(model, "uint8", None, None, None).views
    assert shifted == contract_of(built(tta="full"), "uint8", None, None, None).views, "by a pixel of the image"


def test_a_fit_trains_validates_tests_and_stores_the_size(tmp_path):
    model, module = ImageClassifier(MINI, mixup={"alpha": 0.4}, seed=1), data(resize=40)
    session = trainer()
    session.fit(model, module)
    assert model.spec.resize.size == 40
    read = sizes_read(model)
    session.test(model, module, verbose=False)
    assert set(read) == {(40, 40)}
    session.save_checkpoint(tmp_path / "resized.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "resized.ckpt")
    images = pictures()
    assert torch.equal(loaded.predict_probabilities(images)[0], model.predict_probabilities(images)[0])
    alone = trainer().test(loaded, data(), verbose=False)  # which need not be told of the size
    assert alone == session.test(model, module, verbose=False)
    with pytest.raises(SettingsError, match=r"data\.resize: bilinear to 64 asked for, .* resized to 40 \(bilinear\)"):
        loaded.bind(data(resize=64).spec)


def test_checkpoints_from_before_there_were_sizes_have_none():
    stored = built().hparams["spec"]
    del stored["resize"]
    model = ImageClassifier(MINI, spec=stored, restoring=True)
    assert model.spec.network_resolution == 28


def test_another_size_of_a_network_with_one_size_is_one_line():
    vit = Backbone(name="vit_tiny", pretrained=False)
    stored = {**ImageClassifier(vit, spec=TaskSpec(classes=3, resize={"size": 32})).hparams}
    same = TaskSpec(classes=3, resolution=32)
    check_compatible(stored, same, ImageClassifier(vit).settings)
    with pytest.raises(SettingsError, match=r"^data\.resize\.size: 40 needs another network .* was trained at 32"):
        check_compatible(stored, TaskSpec(classes=3, resize={"size": 40}), ImageClassifier(vit).settings)
    with pytest.raises(SettingsError, match=r"^data\.resolution: 28 needs another network .* was trained at 32"):
        check_compatible(stored, TaskSpec(classes=3), ImageClassifier(vit).settings)


@pytest.mark.parametrize(("size", "mode"), [(20, "bicubic"), (40, "pad"), (56, "bilinear")])
def test_an_artifact_takes_the_images_and_resizes_inside(size, mode):
    model, images = built({"size": size, "mode": mode}, tta="light"), pictures()
    contract = contract_of(model, "uint8", None, None, None)
    assert contract.shape == ("batch", 3, 28, 28)
    assert contract.as_text()["inside"]["resize"] == {"size": size, "mode": mode}
    contract = read_contract(contract.model_dump_json(), "here")
    with torch.no_grad():
        found = ExportedClassifier(model, contract)(images)
    torch.testing.assert_close(found, model.predict_probabilities(images)[1], atol=1e-5, rtol=0)


def test_maps_lie_over_the_image_and_not_over_the_frame():
    model, images = built({"size": 56, "mode": "pad"}, RESNET), pictures(1)
    framed = built(resolution=56, backbone=RESNET)
    framed.load_state_dict(model.state_dict())
    black = torch.nn.functional.pad(images, (14,) * 4)
    wholes = [explain(framed, black, torch.tensor([k]))[:, 14:42, 14:42] for k in range(3)]
    target, whole = next((k, each) for k, each in enumerate(wholes) if each.amax() > 0)
    found = explain(model, images, torch.tensor([target]))
    assert found.shape == (1, 28, 28)
    torch.testing.assert_close(found, whole / whole.amax(), atol=1e-4, rtol=0)


# --- model.backbone.normalisation


WEIGHTS = RESNET.model_copy(update={"normalisation": "weights"})


def test_constants_of_the_weights_change_what_the_network_is_given_and_are_stored(tmp_path):
    entry, module = backbone_entry("resnet18"), data()
    model, session = ImageClassifier(WEIGHTS, seed=1), trainer(limit_train_batches=1, limit_val_batches=1)
    given: list[torch.Tensor] = []
    session.fit(model, module)
    assert (model.spec.mean, model.spec.std) == (entry.mean, entry.std)
    model.network.register_forward_pre_hook(lambda layer, images: given.append(images[0].clone()))
    session.test(model, module, verbose=False)
    pixels = module.dataset_for("test").__getitems__([0, 1, 2, 3])[0]
    wanted = normalise(pixels.expand(-1, 3, -1, -1), entry.mean, entry.std)
    torch.testing.assert_close(given[0][:4], wanted)
    assert not torch.allclose(wanted, normalise(pixels, module.spec.mean, module.spec.std))
    session.save_checkpoint(tmp_path / "weights.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "weights.ckpt")
    assert (loaded.spec.mean, loaded.spec.std) == (entry.mean, entry.std)
    contract = contract_of(loaded, "uint8", None, None, None)
    assert contract.as_text()["inside"]["mean"] == list(entry.mean)
    assert trainer().test(loaded, data(), verbose=False) == session.test(model, module, verbose=False)


def test_a_grey_network_has_the_means_of_the_constants():
    model = ImageClassifier(WEIGHTS, spec=TaskSpec(classes=2, channels=1))
    assert model.spec.mean == pytest.approx((0.449,))
    assert model.spec.std == pytest.approx((0.226,))


def test_a_checkpoint_keeps_its_own_constants():
    spec = TaskSpec(classes=2, mean=(0.1,) * 3, std=(0.2,) * 3)
    assert ImageClassifier(WEIGHTS, spec=spec, restoring=True).spec.mean == (0.1,) * 3
    stored = copy.deepcopy(dict(ImageClassifier(WEIGHTS, spec=spec).hparams))
    with pytest.raises(SettingsError, match=r"model\.backbone\.normalisation: dataset asked for, .* has weights"):
        check_compatible(stored, spec, ImageClassifier(RESNET).settings)


def test_constants_of_weights_that_nobody_publishes_are_refused():
    with pytest.raises(SettingsError, match=r"normalisation: weights is not allowed for mini_cnn"):
        ImageClassifier(MINI.model_copy(update={"normalisation": "weights"}), spec=TaskSpec(classes=2))


def test_batches_have_the_constants_of_the_network_that_they_are_given_to():
    """A task that somebody writes down has others than the data set, and these are what its checkpoint holds."""
    module = data()
    model = ImageClassifier(MINI, spec=TaskSpec(classes=module.spec.classes))
    given: list[torch.Tensor] = []
    session = trainer(limit_train_batches=1, limit_val_batches=1)
    session.fit(model, module)
    model.network.register_forward_pre_hook(lambda layer, images: given.append(images[0].clone()))
    session.test(model, module, verbose=False)
    pixels = module.dataset_for("test").__getitems__([0, 1, 2, 3])[0]
    torch.testing.assert_close(given[0][:4], normalise(pixels, (0.5,) * 3, (0.5,) * 3))


@pytest.mark.parametrize("mode", ["bilinear", "pad"])
def test_volumes_are_resized_along_each_axis_also_inside_an_artifact(mode):
    spec = TaskSpec(classes=2, channels=1, spatial_dims=3, resolution=12, resize={"size": 16, "mode": mode})
    model = ImageClassifier(MINI, spec=spec)
    model.configure_model()
    model.eval()
    read, voxels = sizes_read(model), torch.randint(0, 256, (2, 1, 12, 12, 12), dtype=torch.uint8)
    wanted = model.predict_probabilities(voxels, tta=False)[0]
    assert read == [(16, 16, 16)]
    contract = contract_of(model, "uint8", None, None, None).model_copy(update={"views": ("identity",)})
    with torch.no_grad():
        torch.testing.assert_close(ExportedClassifier(model, contract)(voxels), wanted, atol=1e-5, rtol=0)
    assert explain(model, voxels, torch.tensor([0, 1])).shape == (2, 12, 12, 12)


def test_a_repositorys_own_constants_come_before_those_of_the_backbone():
    spec, settings = TaskSpec(classes=2), Backbone(name="resnet18", normalisation="weights")
    found = TransferReport(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    taken = with_constants_of(spec, settings, found)
    assert (taken.mean, taken.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    grey = with_constants_of(TaskSpec(classes=2, channels=1), settings, found)
    assert grey.mean == (pytest.approx(0.2),)
    assert with_constants_of(spec, Backbone(name="resnet18"), found) is spec
    assert with_constants_of(spec, settings, TransferReport()) is spec
