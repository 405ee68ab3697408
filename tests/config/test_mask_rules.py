"""What settings mean where the labels are masks: what has no part in it is refused, what is searched follows."""

import pytest
import torch

from tests.conftest import flags
from tests.tasks.helpers import mask_data, mask_spec
from tests.training.helpers import MINI, fit
from visionforge.config.schema import RunSettings
from visionforge.data import dataset_info
from visionforge.data.info import TaskSpec
from visionforge.errors import SettingsError
from visionforge.training.classifier import ImageClassifier
from visionforge.tuning.space import build_space

MASKS = {"data__synthetic__task": "segmentation"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__decoder__name": "fpn"},
            "model.decoder: fpn would be ignored, because the labels of synthetic",
        ),
        ({"model__decoder__width": 16}, "model.decoder: unet would be ignored"),
        ({"model__loss__name": "dice"}, "model.loss.name: dice does not fit synthetic, whose labels are multi-class"),
        ({"model__monitor": "val/mean_dice"}, "model.monitor: 'val/mean_dice' does not fit multi-class labels"),
        (
            {**MASKS, "model__backbone__dropout": 0.2},
            "model.backbone.dropout: 0.2 would be ignored: a network for segmentation has no classifier; set "
            "model.decoder.dropout",
        ),
        (
            {**MASKS, "model__loss__name": "ordinal"},
            "model.loss.name: ordinal does not fit synthetic, whose labels are segmentation; allowed: ",
        ),
        ({**MASKS, "model__monitor": "val/auc"}, "model.monitor: 'val/auc' does not fit segmentation labels"),
        ({**MASKS, "model__decoder__name": "unett"}, "model.decoder.name: 'unett' is not allowed"),
        ({**MASKS, "model__decoder__width": 4}, "model.decoder.width"),
        ({**MASKS, "model__decoder__dropout": 1}, "model.decoder.dropout"),
        ({**MASKS, "model__loss__dice": 0, "model__loss__cross_entropy": 0, "model__loss__name": "combined"}, "all 0"),
        (
            {**MASKS, "model__loss__class_weights": "effective-number", "data__balanced_sampling": "false"},
            "model.loss.class_weights: effective-number would weigh all classes alike",
        ),
        ({**MASKS, "evaluation__explanations": 3}, "evaluation.explanations: 3 would be ignored"),
        ({**MASKS, "model__loss__class_weights": "{disk: 2}"}, "has no class 'disk'; nearest: disc"),
    ],
)
def test_what_has_no_part_in_it_is_refused_in_one_line(refuse, changes, message):
    (line,) = refuse("fit", *flags(**changes))
    assert message in line


@pytest.mark.parametrize(
    ("settings", "spec", "message"),
    [
        (
            {"backbone": {"name": "mini_cnn", "pretrained": False, "dropout": 0.5}},
            mask_spec(),
            "model.backbone.dropout",
        ),
        ({"backbone": "mini_cnn", "decoder": "fpn"}, TaskSpec(classes=3), "model.decoder: fpn would be ignored"),
    ],
)
def test_python_is_told_the_same(settings, spec, message):
    with pytest.raises(SettingsError, match=message):
        ImageClassifier(**settings, spec=spec).configure_model()


def test_scale_and_overlap_are_of_places(refuse, quick_run, tmp_path):
    (tmp_path / "p.png").write_bytes(b"")
    for given in (["--scale", "native"], ["--overlap", "0.1"]):
        (line,) = refuse("predict", "--run", str(quick_run), "--images", "p.png", "--out", "said.csv", *given)
        assert (
            f"{given[0].removeprefix('--')}: is for networks that predict masks or boxes; this one predicts classes"
            in line
        )


@pytest.mark.parametrize("preset", ["quick", "full", "architectures"])
@pytest.mark.parametrize(("task", "path"), [("segmentation", "decoder"), ("multi-class", "backbone")])
def test_a_search_has_the_dropout_that_the_network_has(preset, task, path):
    data = {"dataset": "synthetic", "synthetic": {"task": task, "train": 2000}}
    settings = RunSettings.model_validate({"data": data, "tune": {"preset": preset}})
    flags_of = dataset_info("synthetic", settings.data.synthetic).flags
    space = build_space(settings, flags_of, ("resnet18", "mini_cnn"), lambda given: [])
    dropouts = {each.path for each in space.parameters if each.path.endswith(".dropout")}
    assert dropouts == {f"model.{path}.dropout"}


def test_sampling_by_the_classes_that_pictures_have():
    data, usual = mask_data(balanced_sampling=True), mask_data(balanced_sampling=False)
    for each in (data, usual):
        each.setup("fit")
    drawn, all_of_them = (list(each.train_dataloader()) for each in (data, usual))
    assert len(drawn) == len(all_of_them)
    assert not torch.equal(drawn[0][1], all_of_them[0][1])
    assert fit(ImageClassifier(MINI), 1, data).callback_metrics["val/loss"].isfinite()
