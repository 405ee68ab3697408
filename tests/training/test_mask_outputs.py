"""What is kept of the masks of a split, the metrics that are logged of it, and trainings of masks as a whole."""

from typing import ClassVar, Literal

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import visionforge as vf
from tests.tasks.helpers import NAMES, drawn_masks, mask_data, mask_model, mask_spec, noise
from tests.training.helpers import MINI, fit, trainer, weights
from visionforge.config.schema import Augmentation, EvaluationSettings, Loss
from visionforge.errors import DataError
from visionforge.training.classifier import ImageClassifier
from visionforge.training.epoch_log import EpochLog
from visionforge.training.mask_criterion import MaskCriterion
from visionforge.training.mask_outputs import MaskOutputs
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.split_outputs import Pass

SPEC = mask_spec()
CRITERION = MaskCriterion.of(Loss(), "segmentation", 3)
LOGITS = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2
MASKS = torch.from_numpy(drawn_masks(7, ignored=0.2)).long()
MASKS[2] = 255  # a picture of which nothing counts
MASKS[3, :12] = 255


def gathered(logits=LOGITS, averaged=None, sizes=(3, 4)):
    outputs = MaskOutputs()
    for part in range(len(sizes)):
        start = sum(sizes[:part])
        rows = slice(start, start + sizes[part])
        outputs.add(logits[rows], MASKS[rows], None if averaged is None else averaged[rows], CRITERION)
    assert len(outputs) == len(sizes)
    found = outputs.gather(1)
    assert len(outputs) == 0
    return found


def concluded(found, **changes):
    return found.conclude(Pass("val", SPEC, CRITERION, **changes))


def expected(said, **arguments):
    shared = {"ignore": 255, "background": 0, "tolerance": 1.0}
    return vf.metrics.segmentation_metrics(MASKS.numpy(), said.numpy(), 3, **shared, **arguments)


def test_logged_metrics_are_those_of_the_public_function():
    averaged = torch.softmax(LOGITS.flip(0), dim=1)
    found = concluded(gathered(averaged=averaged), watched={"val/mean_boundary_f1", "val/mean_iou_by_picture"})
    for said, suffix in ((LOGITS.argmax(dim=1), ""), (averaged.argmax(dim=1), "_tta")):
        metrics = expected(said)
        for name in ("mean_dice", "mean_iou", "pixel_accuracy", "mean_boundary_f1", "mean_iou_by_picture"):
            assert float(found.values[f"val/{name}{suffix}"]) == pytest.approx(metrics[name], abs=1e-6)
    usual = concluded(gathered())
    assert set(usual.values) == {"val/loss", "val/mean_dice", "val/mean_iou", "val/pixel_accuracy"}


def test_the_logged_loss_is_the_cross_entropy_of_all_pixels_that_count():
    reference = torch.nn.functional.cross_entropy(LOGITS.double(), MASKS, ignore_index=255)
    for sizes in ((3, 4), (7,), (1,) * 7):
        found = concluded(gathered(sizes=sizes))
        assert float(found.values["val/loss"]) == pytest.approx(float(reference), rel=1e-6)
        assert found.predictions.loss == pytest.approx(float(reference), rel=1e-6)


def test_what_is_kept_are_masks_and_how_sure_they_are():
    averaged = torch.softmax(LOGITS.flip(0), dim=1)
    predictions = concluded(gathered(averaged=averaged)).predictions
    assert torch.equal(predictions.labels, MASKS.to(torch.uint8))
    for view, given in ((predictions.alone, LOGITS.softmax(dim=1)), (predictions.with_views, averaged)):
        assert view.masks.dtype == torch.uint8
        assert torch.equal(view.masks.long(), given.argmax(dim=1))
        torch.testing.assert_close(view.sure, given.max(dim=1).values.mean(dim=(1, 2)))


def test_outputs_that_are_not_finite_are_found():
    logits = LOGITS.clone()
    assert gathered(logits).finite
    logits[5, 1, 3, 3] = torch.nan
    assert not gathered(logits).finite
    with pytest.raises(DataError, match="calibration: a segmentation has no temperatures"):
        gathered().calibrate(SPEC, CRITERION, EvaluationSettings())


# --- trainings


def test_logged_metrics_of_a_fit_are_those_of_its_masks():
    model, data = ImageClassifier(MINI, decoder="fpn"), mask_data()
    one = fit(model, 1, data)
    logged = {name: float(value) for name, value in one.callback_metrics.items()}
    predictions = model.predictions
    truth = data.dataset_for("val").labels
    assert torch.equal(predictions.labels, truth)
    found = vf.metrics.segmentation_metrics(truth.numpy(), predictions.alone.masks.numpy(), 3, ignore=255, background=0)
    for name in ("mean_dice", "mean_iou", "pixel_accuracy"):
        assert logged[f"val/{name}"] == pytest.approx(found[name], abs=1e-6)
    assert model.monitor.name == "val/mean_dice"


@pytest.mark.parametrize("changes", [{}, {"mixup": MixUp(alpha=0.4, cutmix_alpha=1.0)}])
@pytest.mark.parametrize("step", [3, 5, 8])
def test_resumed_in_the_middle_of_an_epoch_it_ends_with_the_same_weights(tmp_path, step, changes):
    """Five steps per epoch, with a decoder that drops channels."""

    def make():
        decoder = {"name": "unet", "width": 8, "dropout": 0.3}
        return ImageClassifier(MINI, decoder=decoder, **changes), mask_data(augmentation=Augmentation())

    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1, save_on_train_epoch_end=False
    )
    whole, source = make()
    log = EpochLog(tmp_path / "whole.csv")
    fit(whole, 2, source, callbacks=[keep], enable_checkpointing=True, logger=log, log_every_n_steps=1)
    resumed, source = make()
    again = EpochLog(tmp_path / "resumed.csv")
    pl.seed_everything(42, verbose=False)
    one = trainer(2, logger=again, log_every_n_steps=1)
    one.fit(resumed, datamodule=source, ckpt_path=str(tmp_path / f"{step=}.ckpt"), weights_only=True)
    assert torch.equal(weights(whole), weights(resumed))
    for row, other in zip(log.rows[-len(again.rows) :], again.rows, strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


def test_classes_are_weighed_by_their_pixels():
    model, data = ImageClassifier(MINI, loss={"name": "dice", "class_weights": "balanced"}), mask_data()
    fit(model, 1, data)
    masks = data.dataset_for("train").labels.numpy()
    counts = np.array([(masks == k).sum() for k in range(3)])
    np.testing.assert_allclose(model.criterion.weights, counts.sum() / (3 * counts), rtol=1e-6)


def test_masks_of_ones_own_loader_are_trained_on_and_bad_ones_told(tmp_path):
    pairs = [(image, torch.from_numpy(mask).long()) for image, mask in zip(noise(8), drawn_masks(8), strict=True)]
    model = ImageClassifier(MINI, spec=SPEC)
    trainer(1).fit(model, torch.utils.data.DataLoader(pairs, batch_size=4))
    bad = torch.utils.data.DataLoader([(image, mask + 1) for image, mask in pairs], batch_size=4)
    with pytest.raises(DataError, match="labels: 3 is no class; allowed: 0 to 2"):
        trainer(1).fit(ImageClassifier(MINI, spec=SPEC), bad)
    small = torch.utils.data.DataLoader([(image, mask[:8]) for image, mask in pairs], batch_size=4)
    with pytest.raises(DataError, match=r"labels: \(4, 8, 16\); allowed: \(4, 16, 16\)"):
        trainer(1).fit(ImageClassifier(MINI, spec=SPEC), small)


def test_a_loss_and_a_metric_of_ones_own_are_of_the_training(own_parts_forgotten):
    seen = []

    @vf.register_loss
    class Squares(vf.Loss):
        """The squared distance of the probabilities of the pixels that count."""

        tasks: ClassVar[tuple[str, ...]] = ("masks",)
        name: Literal["own_squares"] = "own_squares"

        def loss(self, logits, targets, weights):
            seen.append((tuple(logits.shape), tuple(targets.shape), weights))
            counted = targets.sum(dim=1) > 0
            return (logits.softmax(dim=1) - targets).square().sum(dim=1)[counted].mean()

    @vf.register_metric(label="share of pixels that are said to be objects", tasks=("masks",))
    def object_share(truth, probabilities, predicted, weights):
        assert probabilities is None
        assert truth.shape == predicted.shape == (16, 16, 16)
        return float(np.average((predicted > 0).mean(axis=(1, 2)), weights=weights))

    model = ImageClassifier(MINI, loss="own_squares", monitor="val/object_share")
    one = fit(model, 1, mask_data())
    assert seen[0] == ((8, 3, 16, 16), (8, 3, 16, 16), None)
    share = (model.predictions.alone.masks > 0).float().mean()
    assert float(one.callback_metrics["val/object_share"]) == pytest.approx(float(share), abs=1e-6)
    with pytest.raises(vf.VisionForgeError, match="own_squares does not fit labels that are multi-class"):
        ImageClassifier(MINI, loss="own_squares", spec=vf.TaskSpec(classes=3)).configure_model()


def test_a_checkpoint_brings_the_decoder_and_says_the_same(tmp_path):
    model = ImageClassifier(MINI, decoder={"name": "fpn", "width": 16}, tta="light")
    one = fit(model, 1, mask_data())
    one.save_checkpoint(tmp_path / "one.ckpt")
    again = ImageClassifier.load_from_checkpoint(tmp_path / "one.ckpt", map_location="cpu")
    assert (again.settings.decoder.name, again.settings.decoder.width) == ("fpn", 16)
    given = [each.predict_probabilities(noise(3))[1] for each in (model, again)]
    assert torch.equal(*given)
    assert again.spec.classes == NAMES
    assert mask_model().monitor.name == "val/mean_dice"
