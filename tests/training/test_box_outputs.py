"""What is kept of the boxes of a split, the metrics that are logged of it, and trainings of boxes as a whole."""

import threading
from concurrent.futures import ThreadPoolExecutor

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import visionforge as vf
from tests.conftest import EXHAUSTIVE
from tests.tasks.helpers import box_data, box_spec, drawn_boxes, noise, said_boxes
from tests.training.helpers import MINI, fit, trainer, weights
from visionforge.config.schema import Augmentation, EvaluationSettings, Loss
from visionforge.data.augment import normalise
from visionforge.errors import DataError, RunError, SettingsError, TrainingError
from visionforge.training.box_criterion import BoxCriterion
from visionforge.training.box_outputs import BoxOutputs, evaluated_losses
from visionforge.training.classifier import ImageClassifier
from visionforge.training.epoch_log import EpochLog
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.split_outputs import Pass

SPEC = box_spec()
CRITERION = BoxCriterion.of(Loss(), "detection")
TRUTH = drawn_boxes(7)
SAID = said_boxes(TRUTH)
SMALL = {"width": 32, "depth": 1}


def box_model(detector="fcos", seed=1, **settings) -> ImageClassifier:
    torch.manual_seed(seed)
    fields = {"name": detector, "width": 32, **({"depth": 1} if detector == "fcos" else {})}
    model = ImageClassifier(MINI, detector=fields, spec=SPEC, **{"tta": "off", **settings})
    model.configure_model()
    return model.eval()


def gathered(averaged=None, sizes=(3, 4), losses=(0.5, 0.25)):
    outputs = BoxOutputs()
    for part, loss in enumerate(losses):
        rows = slice(sum(sizes[:part]), sum(sizes[: part + 1]))
        own = torch.from_numpy(TRUTH[rows])
        own = own[:, : max(1, int((own[..., 0] >= 0).sum(dim=1).max()))]  # as loaders that pad batch by batch
        said, views = (None if each is None else torch.from_numpy(each[rows]) for each in (SAID, averaged))
        outputs.add(said, own, views, CRITERION, torch.full((sizes[part],), loss))
    assert len(outputs) == len(sizes)
    found = outputs.gather(1)
    assert len(outputs) == 0
    return found


def concluded(found, **changes):
    return found.conclude(Pass("val", SPEC, CRITERION, **changes))


def test_logged_metrics_are_those_of_the_public_function():
    averaged = said_boxes(TRUTH, seed=9)
    found = concluded(gathered(averaged), watched={"val/mar_100", "val/f1"})
    for said, suffix in ((SAID, ""), (averaged, "_tta")):
        expected = vf.metrics.detection_metrics(TRUTH, said, 2)
        for name in ("map", "map_50", "map_75", "mar_100", "f1"):
            assert float(found.values[f"val/{name}{suffix}"]) == pytest.approx(expected[name], abs=1e-6)
    assert set(concluded(gathered()).values) == {"val/loss", "val/map", "val/map_50", "val/map_75"}


def test_the_logged_loss_is_the_mean_over_the_images():
    found = concluded(gathered())
    assert float(found.values["val/loss"]) == pytest.approx((3 * 0.5 + 4 * 0.25) / 7)
    assert found.predictions.loss == pytest.approx((3 * 0.5 + 4 * 0.25) / 7)
    assert not gathered(losses=(0.5, float("nan"))).finite
    assert gathered().finite


def test_what_is_kept_are_the_boxes():
    predictions = concluded(gathered(said_boxes(TRUTH, seed=9))).predictions
    np.testing.assert_array_equal(predictions.labels, TRUTH[:, : predictions.labels.shape[1]])
    np.testing.assert_array_equal(predictions.alone, SAID)
    np.testing.assert_array_equal(predictions.with_views, said_boxes(TRUTH, seed=9))
    with pytest.raises(DataError, match="a detection has no temperatures"):
        gathered().calibrate(SPEC, CRITERION, EvaluationSettings())


@pytest.mark.parametrize("detector", ["fcos", "retinanet", "faster_rcnn"])
def test_the_loss_of_an_evaluated_image_is_that_of_the_network_and_changes_nothing(detector):
    model, labels, images = box_model(detector), torch.from_numpy(drawn_boxes(4)), noise(4, 32, 32)
    before, state = model.state_dict(), torch.random.get_rng_state()
    kept = {name: value.clone() for name, value in before.items()}
    found = evaluated_losses(model, images, labels)
    assert torch.equal(found, evaluated_losses(model, normalise(images, SPEC.mean, SPEC.std), labels))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    for place in range(4):
        torch.manual_seed(0)
        with torch.no_grad():
            loss = model.network.losses(normalise(images, SPEC.mean, SPEC.std)[place, None], labels[place, None])
        torch.testing.assert_close(found[place], loss)
    torch.testing.assert_close(found[1:3], evaluated_losses(model, images[1:3], labels[1:3]))  # whatever the batch


def test_processes_may_have_images_with_more_boxes_than_those_of_others(monkeypatch):
    """Loaders that pad batch by batch give one process two rows, another four; threads stand for the processes."""
    barrier, given, rank = threading.Barrier(2, timeout=20), [None, None], threading.local()

    def exchange(found, value):
        given[rank.own] = value
        barrier.wait()
        found[:] = list(given)
        barrier.wait()

    def gathered_by(number):
        rank.own = number
        outputs, own = BoxOutputs(), torch.from_numpy(TRUTH[number::2])
        own = own[:, : 4 - 2 * number]
        outputs.add(torch.from_numpy(SAID[number::2]), own, None, CRITERION, torch.full((len(own),), float(number)))
        return outputs.gather(2)

    monkeypatch.setattr(torch.distributed, "all_gather_object", exchange)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(gathered_by, (0, 1))
    expected = TRUTH.copy()
    expected[1::2, 2:] = [-1, 0, 0, 0, 0]
    for found in (one, other):
        np.testing.assert_array_equal(found.labels, expected)
        np.testing.assert_array_equal(found.alone, SAID)
        assert found.losses.tolist() == [0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("part", ["encoder", "pyramid", "detector"])
@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn"])
def test_weights_that_are_not_finite_do_not_pass_for_pictures_without_objects(detector, part):
    model = box_model(detector)
    with torch.no_grad():
        next(each for name, each in model.network.named_parameters() if name.startswith(part)).fill_(float("nan"))
    with pytest.raises(RunError, match="not finite, so its training has diverged; take another checkpoint"):
        SPEC.kind.predictor(model)


def test_a_training_logs_what_it_is_compared_by_and_no_accuracy(tmp_path):
    log = EpochLog(tmp_path / "log.csv")
    model = ImageClassifier(MINI, detector=SMALL)
    one = fit(model, 1, box_data(), logger=log)
    (row,) = log.rows
    assert {"train/loss", "val/loss", "val/map", "val/map_50"} <= set(row)
    assert not [name for name in row if "accuracy" in name]
    assert model.monitor.name == "val/map"
    assert np.isfinite(float(one.callback_metrics["val/loss"]))


def test_views_are_merged_and_their_settings_followed():
    images = noise(3, 32, 32)
    for tta, views in (("off", 1), ("light", 3), ("full", 6)):
        raw, averaged = box_model(tta=tta).predict_probabilities(images)
        assert raw.shape == (3, 100, 6)
        assert (averaged is None) == (views == 1)
    even, own = (box_model(tta="light", tta_weight=weight).predict_probabilities(images)[1] for weight in (None, 0.9))
    assert not torch.equal(even, own)


@pytest.mark.parametrize("detector", ["fcos", pytest.param("faster_rcnn", marks=EXHAUSTIVE)])
def test_resumed_run_is_bit_identical(tmp_path, detector):
    """Five steps per epoch: interrupted in the middle and at the end of an epoch; regions are drawn at random."""

    def make():
        mixup = MixUp(alpha=0.4, cutmix_alpha=1.0)
        return ImageClassifier(MINI, detector={"name": detector, "width": 32}, mixup=mixup), box_data(
            augmentation=Augmentation()
        )

    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
    )
    whole, source = make()
    log = EpochLog(tmp_path / "whole.csv")
    fit(whole, 2, source, callbacks=[keep], enable_checkpointing=True, logger=log, log_every_n_steps=1)
    for step in (3, 5, 8):
        resumed, source = make()
        again = EpochLog(tmp_path / f"resumed{step}.csv")
        pl.seed_everything(42, verbose=False)
        one = trainer(2, logger=again, log_every_n_steps=1)
        one.fit(resumed, datamodule=source, ckpt_path=str(tmp_path / f"{step=}.ckpt"), weights_only=True)
        assert torch.equal(weights(whole), weights(resumed)), step
        for row, other in zip(log.rows[-len(again.rows) :], again.rows, strict=True):
            assert {**row, "seconds": None} == {**other, "seconds": None}, step


def own_pairs(more=0):
    """Return somebody's own loader, of whose rows every number may be too large."""
    pairs = zip(noise(8, 32, 32), torch.from_numpy(drawn_boxes(8)) + more, strict=True)
    return torch.utils.data.DataLoader(list(pairs), batch_size=4)


def test_boxes_of_ones_own_loader_are_trained_on_and_bad_ones_told():
    trainer(1).fit(ImageClassifier(MINI, detector=SMALL, spec=SPEC), own_pairs())
    bad = own_pairs(1)
    with pytest.raises(DataError, match="is no box; allowed:"):
        trainer(1).fit(ImageClassifier(MINI, detector=SMALL, spec=SPEC), bad)


def test_boxes_are_not_rounded_by_the_precision_of_a_training():
    for model, source in (
        (ImageClassifier(MINI, detector=SMALL), {"datamodule": box_data()}),
        (ImageClassifier(MINI, detector=SMALL, spec=SPEC), {"train_dataloaders": own_pairs()}),
    ):
        with pytest.raises(DataError, match=r"boxes of torch\.bfloat16, which rounds pixels; allowed: float32"):
            trainer(1, precision="bf16-true").fit(model, **source)


def test_a_box_outside_of_its_image_is_told_before_it_is_moved():
    source = box_data(augmentation=Augmentation())
    source.setup("fit")
    images, labels = next(iter(source.train_dataloader()))
    with pytest.raises(DataError, match=r"labels: boxes: row .* lies outside of its image of 32×32 pixels"):
        source.augment_pairs(images, torch.where(labels >= 0, labels + 100, labels), 0, 0)


def test_a_training_that_diverges_is_one_line():
    model = ImageClassifier(MINI, detector=SMALL, optimizer={"name": "sgd", "learning_rate": 0.99})
    source = box_data()
    source.setup("fit")
    pl.seed_everything(42, verbose=False)
    model.bind(source.spec)
    model.configure_model()
    with torch.no_grad():
        model.network.pyramid.layer_blocks[0][0].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the training has diverged"):
        trainer(1).validate(model, datamodule=source)


def test_a_checkpoint_brings_the_detector_and_says_the_same(tmp_path):
    model = ImageClassifier(MINI, detector={"name": "retinanet", "width": 32}, tta="light")
    one = fit(model, 1, box_data())
    one.save_checkpoint(tmp_path / "one.ckpt")
    again = ImageClassifier.load_from_checkpoint(tmp_path / "one.ckpt", map_location="cpu")
    assert (again.settings.detector.name, again.settings.detector.width) == ("retinanet", 32)
    given = [each.predict_probabilities(noise(3, 32, 32))[1] for each in (model, again)]
    assert torch.equal(*given)


def test_backbone_first_and_class_weights():
    model = ImageClassifier(MINI, detector=SMALL, finetuning={"freeze_epochs": 1})
    fit(model, 1, box_data())
    with pytest.raises(SettingsError, match="would be ignored by a detector's own losses"):
        fit(ImageClassifier(MINI, detector=SMALL, loss={"class_weights": "balanced"}), 1, box_data())


def test_a_metric_of_ones_own_is_of_the_training(own_parts_forgotten):
    @vf.register_metric(label="boxes of a picture", tasks=("boxes",))
    def boxes_said(truth, probabilities, predicted, weights):
        assert probabilities is None
        assert truth.shape[2] == 5
        return float(np.average((predicted[..., 0] >= 0).sum(axis=1), weights=weights))

    model = ImageClassifier(MINI, detector=SMALL, monitor="val/boxes_said")
    one = fit(model, 1, box_data())
    count = (model.predictions.alone[..., 0] >= 0).sum(dim=1).double().mean()
    assert float(one.callback_metrics["val/boxes_said"]) == pytest.approx(float(count), rel=1e-6)


def test_a_loss_of_ones_own_is_not_of_boxes(own_parts_forgotten):
    from typing import ClassVar, Literal

    @vf.register_loss
    class Own(vf.Loss):
        """Of boxes."""

        tasks: ClassVar[tuple[str, ...]] = ("boxes",)
        name: Literal["own_boxes"] = "own_boxes"

        def loss(self, logits, targets, weights):
            return logits.sum()

    with pytest.raises(SettingsError, match="own_boxes is not asked: a detector brings its losses"):
        ImageClassifier(MINI, loss="own_boxes", spec=SPEC).configure_model()
