"""Several threads ask one network at the same time, and say what one would have said, in order."""

import threading
import time

import numpy as np
import pytest
import torch

from visionforge import ImageClassifier, TaskSpec
from visionforge.engine.parallel_prediction import predictors_for, said_of
from visionforge.inference.predictor import NetworkPredictor
from visionforge.training.calibration import Calibration
from visionforge.training.outliers import Outliers

SPEC = TaskSpec(classes=3, resolution=16)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = ImageClassifier(backbone={"name": "mini_cnn", "pretrained": False, "dropout": 0.5}, spec=SPEC)
    model.configure_model()
    layer = model.last_layer
    model.calibration = Calibration(images=30, temperature=1.3, temperature_tta=0.8)
    torch.nn.init.normal_(layer.weight, std=2.0)
    bank = torch.nn.functional.normalize(torch.rand(20, layer.in_features), dim=1)
    model.outliers = Outliers("knn", {"bank": bank}, 0.5, 30)
    return model


def batches(count, size=5):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (size, 3, 16, 16), dtype=torch.uint8, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("tta", [False, True])
def test_they_say_what_one_says(model, threads, tta):
    """Each with its own views, its own mode, and its own look at the features."""
    torch.set_num_threads(1)
    one = NetworkPredictor(model, tta)
    expected = [one(batch) for batch in batches(40)]
    several, size = predictors_for(one, 4, 400, 128)
    assert (len(several), size) == (4, 32)
    model.train()
    found = list(said_of(several, batches(40), lambda predictor, batch: predictor(batch)))
    assert model.training, "the network is as it was"
    model.eval()
    assert "ood_score" in expected[0].columns
    for said, (_, other) in zip(expected, found, strict=True):
        np.testing.assert_array_equal(said.labels, other.labels)
        np.testing.assert_allclose(said.calibrated, other.calibrated, rtol=0, atol=1e-6)
        assert said.columns.keys() == other.columns.keys()
        for name, values in said.columns.items():
            np.testing.assert_allclose(values, other.columns[name], rtol=1e-5, err_msg=name)


def test_weights_are_shared_and_nothing_else(model):
    one = NetworkPredictor(model)
    other = one.sharing_weights()
    pairs = zip(one._model.state_dict().values(), other._model.state_dict().values(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert other._model is not model
    assert other._model.network is not model.network


def test_results_come_in_order_and_few_are_ahead(threads):
    begun, lock = [], threading.Lock()

    def ask(predictor, number):
        with lock:
            begun.append(number)
        time.sleep(0.02 if number % 3 == 0 else 0.001)
        return number * 10

    stream = said_of(["a", "b", "c"], iter(range(50)), ask)
    assert next(stream) == (0, 0)
    time.sleep(0.2)
    assert max(begun) <= 4, "no more than are worked on, and one for each thread"
    assert list(stream) == [(number, number * 10) for number in range(1, 50)]


def test_a_mistake_is_told_and_the_rest_left(threads):
    asked = []

    def ask(predictor, number):
        asked.append(number)
        if number == 3:
            raise RuntimeError("broken")
        return number

    stream = said_of(["a", "b"], iter(range(100)), ask)
    with pytest.raises(RuntimeError, match="broken"):
        list(stream)
    assert len(asked) < 10


@pytest.mark.parametrize("ends", ["by itself", "early"])
def test_torchs_threads_are_what_they_were(threads, ends):
    torch.set_num_threads(2)
    inside = []
    stream = said_of(["a", "b"], range(6), lambda *_: inside.append(torch.get_num_threads()))
    if ends == "early":
        next(stream)
        stream.close()
    else:
        list(stream)
    assert set(inside) == {1}
    assert torch.get_num_threads() == 2
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_one_is_enough_for_few_batches_one_core_or_a_runtime_with_threads_of_its_own(model):
    one = NetworkPredictor(model)
    assert predictors_for(one, 1, 1000, 128) == ([one], 128)
    assert predictors_for(one, 4, 255, 128) == ([one], 128), "less than two batches"
    assert predictors_for(one, 4, 1000, 31) == ([one], 31), "the batches of two would be too small"
    found, size = predictors_for(one, 4, 1000, 40)
    assert (len(found), size) == (2, 20), "together no more than one would have"

    class Artifact:
        spec = SPEC

    artifact = Artifact()
    assert predictors_for(artifact, 4, 1000, 128) == ([artifact], 128)
