"""Features are what the last layer is given, of each image as it is; they are computed once and never mixed up."""

import numpy as np
import pytest
import torch

from tests.conftest import QUICK
from tests.training.helpers import MINI, data
from visionforge import ImageClassifier
from visionforge.config.loading import read_values
from visionforge.config.schema import Backbone, Synthetic
from visionforge.engine import embedding
from visionforge.engine.embedding import Features, images_fingerprint, network_fingerprint, split_features
from visionforge.engine.frozen import frozen_network
from visionforge.errors import RunError, SettingsError, WeightsError

FLAGS = {name: value for name, value in QUICK.items() if name.startswith(("data.", "trainer.acc"))}


def network(datamodule, seed=0, **settings):
    torch.manual_seed(seed)
    model = ImageClassifier(**{"backbone": MINI, "spec": datamodule.spec, **settings})
    model.configure_model()
    return model


@pytest.fixture(scope="module")
def module():
    return data()


def test_features_are_what_the_last_layer_is_given(module):
    model = network(module, backbone=Backbone(name="mini_cnn", pretrained=False, dropout=0.5))
    found = split_features(model, module, "val", cache=None)
    images, labels = module.dataset_for("val").images, module.dataset_for("val").labels
    with torch.no_grad():
        logits = model.eval()(images)
        layer = model.last_layer
        again = torch.nn.functional.linear(torch.from_numpy(found.values), layer.weight, layer.bias)
    torch.testing.assert_close(again, logits, rtol=1e-5, atol=1e-5)
    assert found.values.dtype == np.float32
    assert found.labels.tolist() == labels.tolist()
    assert found.names is None
    assert set(found.splits.tolist()) == {"val"}


def test_several_splits_are_joined_in_their_order(module):
    model = network(module)
    parts = [split_features(model, module, split, cache=None) for split in ("train", "val")]
    joined = Features.joined(parts)
    assert joined.values.shape == (80 + 32, parts[0].values.shape[1])
    assert joined.splits.tolist() == ["train"] * 80 + ["val"] * 32
    assert joined.names is None


def test_a_second_call_computes_nothing(module, tmp_path, monkeypatch):
    model = network(module)
    first = split_features(model, module, "test", cache=tmp_path)
    monkeypatch.setattr(ImageClassifier, "features", None)
    again = split_features(model, module, "test", cache=tmp_path)
    np.testing.assert_array_equal(again.values, first.values)
    with pytest.raises(TypeError):
        split_features(model, module, "val", cache=tmp_path)


def test_fingerprint_of_the_network_is_of_all_that_features_are_a_function_of(module):
    model = network(module)
    one = network_fingerprint(model)
    with torch.no_grad():
        model.last_layer.weight.zero_()
    assert network_fingerprint(model) == one  # features do not go through it
    names = dict(model.network.named_buffers()) | dict(model.network.named_parameters())
    changed = next(value for name, value in names.items() if name.endswith("running_mean"))
    changed[0] += 1e-6
    assert network_fingerprint(model) != one
    changed[0] -= 1e-6
    model.spec = model.spec.model_copy(update={"mean": (0.1, 0.2, 0.3)})
    assert network_fingerprint(model) != one
    other = network(data(resolution=32))
    assert network_fingerprint(other) != one
    assert network_fingerprint(network(module, seed=1)) != one


def test_fingerprint_of_images_is_of_their_choice_and_order(archives):
    def of(split="train", **changes):
        module = data(**{"dataset": "breastmnist", "resolution": 28, "root": str(archives), **changes})
        return images_fingerprint(module, split, module.dataset_for(split))

    found = [of(), of("val"), of(max_samples=100), of(max_samples=100, seed=1), of(resolution=64)]
    found += [of(folds=5, fold=0), of(folds=5, fold=1), of(folds=5, fold=1, fold_seed=1)]
    assert len(set(found)) == len(found)
    assert of() == found[0]
    small, seeds = data(synthetic=Synthetic(train=8, val=8, test=8)), data()
    assert images_fingerprint(small, "val", small.dataset_for("val")) != images_fingerprint(
        seeds, "val", seeds.dataset_for("val")
    )


def test_a_damaged_file_is_made_anew(module, tmp_path, caplog):
    model = network(module)
    first = split_features(model, module, "test", cache=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:-50])
    np.testing.assert_array_equal(split_features(model, module, "test", cache=tmp_path).values, first.values)
    assert "damaged" in caplog.text


def test_features_that_are_not_finite_are_told(module, tmp_path):
    model = network(module)
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match="features of mini_cnn are not finite"):
        split_features(model, module, "test", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_gives_its_network_and_its_data(quick_run):
    frozen = frozen_network(read_values(None, {"run": str(quick_run), "trainer": {"accelerator": "cpu"}}))
    assert frozen.name == quick_run.name
    assert frozen.datamodule.info.splits.test == 32
    assert not frozen.model.training
    assert not any(each.requires_grad for each in frozen.model.parameters())
    found = split_features(frozen.model, frozen.datamodule, "test", cache=None)
    assert found.values.shape == (32, embedding.feature_count(frozen.model))


def test_settings_give_a_backbone_with_weights(quick_run, tmp_path):
    settings = {**FLAGS, "model.backbone.name": "mini_cnn", "model.backbone.weights": str(quick_run)}
    frozen = frozen_network(read_values(None, settings))
    theirs = frozen_network(read_values(None, {"run": str(quick_run), "trainer.accelerator": "cpu"}))
    mine, run = (split_features(each.model, each.datamodule, "val", cache=tmp_path) for each in (frozen, theirs))
    np.testing.assert_array_equal(mine.values, run.values)
    assert len(list(tmp_path.glob("*.npz"))) == 1  # the same weights from two places


def test_random_weights_give_no_features(quick_run, tmp_path):
    random = {**FLAGS, "model.backbone.name": "mini_cnn", "model.backbone.pretrained": "false"}
    with pytest.raises(SettingsError, match=r"model\.backbone\.pretrained: false leaves random weights"):
        frozen_network(read_values(None, random))
    with pytest.raises(SettingsError, match="no published weights for mini_cnn"):
        frozen_network(read_values(None, {**FLAGS, "model.backbone.name": "mini_cnn"}))
    state = torch.load(quick_run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    some = dict(list(state.items())[:5])
    torch.save(some, tmp_path / "some.pth")
    settings = {**FLAGS, "model.backbone.name": "mini_cnn", "model.backbone.weights": "some.pth"}
    with pytest.raises(WeightsError, match=r"lacks \d+ tensors that the features are computed with"):
        frozen_network(read_values(None, settings))


def test_a_network_of_pixels_has_no_features():
    module = data(synthetic=Synthetic(task="segmentation", train=8, val=8, test=8), resolution=32)
    model = ImageClassifier(backbone=Backbone(name="resnet18", pretrained=False), spec=module.spec)
    model.configure_model()
    with pytest.raises(SettingsError, match="labels no whole images"):
        split_features(model, module, "test", cache=None)
