"""What settings mean where the labels are boxes: what has no part in it is refused."""

import pytest

from tests.conftest import flags
from visionforge.config.schema import RunSettings
from visionforge.data import dataset_info
from visionforge.tuning.space import build_space

BOXES = {"data__synthetic__task": "detection"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__detector__name": "retinanet"}, "model.detector: retinanet would be ignored, because the labels of"),
        ({"model__detector__depth": 3}, "model.detector: fcos would be ignored"),
        ({**BOXES, "model__decoder__name": "fpn"}, "model.decoder: fpn would be ignored"),
        ({"model__loss__name": "detector"}, "model.loss.name: detector does not fit synthetic"),
        ({"model__monitor": "val/map"}, "model.monitor: 'val/map' does not fit multi-class labels"),
        (
            {**BOXES, "model__backbone__dropout": 0.2},
            "model.backbone.dropout: 0.2 would be ignored: a network for detection has no classifier; leave it out",
        ),
        (
            {**BOXES, "model__loss__label_smoothing": 0.1},
            "model.loss.label_smoothing: 0.1 would be ignored: a network for detection is trained by its",
        ),
        (
            {**BOXES, "model__loss__class_weights": "{disc: 2}"},
            "model.loss.class_weights: {'disc': 2.0} would be ignored",
        ),
        (
            {**BOXES, "trainer__precision": "bf16-true"},
            "trainer.precision: 'bf16-true' changes the numbers in which boxes are given, too; for detection data use",
        ),
        ({**BOXES, "model__loss__name": "focal"}, "whose labels are detection; allowed: auto, detector"),
        ({**BOXES, "model__detector__name": "fcoss"}, "model.detector.name: 'fcoss' is not allowed"),
        ({**BOXES, "model__detector__width": 40}, "model.detector.width"),
    ],
)
def test_what_has_no_part_in_it_is_refused_in_one_line(refuse, changes, message):
    (line,) = refuse("fit", *flags(**changes))
    assert message in line


@pytest.mark.parametrize("preset", ["quick", "full", "architectures"])
def test_a_search_leaves_out_what_detectors_do_not_have(preset):
    data = {"dataset": "synthetic", "synthetic": {"task": "detection", "train": 2000}}
    settings = RunSettings.model_validate({"data": data, "tune": {"preset": preset}})
    flags_of = dataset_info("synthetic", settings.data.synthetic).flags
    space = build_space(settings, flags_of, ("resnet18", "mini_cnn"), lambda given: [])
    paths = {each.path for each in space.parameters}
    assert "model.optimizer.learning_rate" in paths
    assert not [path for path in paths if path.endswith("dropout") or path.startswith("model.loss.")]
