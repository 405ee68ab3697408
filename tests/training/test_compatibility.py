"""A checkpoint of another decoder or detector is refused, one line for each difference; how it is used may differ."""

from typing import Any

import pytest
import torch

from tests.tasks.helpers import box_spec, mask_spec
from visionforge.config.schema import Backbone, Decoder, Detector
from visionforge.errors import SettingsError
from visionforge.training.classifier import ImageClassifier

MINI = Backbone(name="mini_cnn", pretrained=False)
SPECS = {"decoder": mask_spec(), "detector": box_spec()}


def model(part: str, settings: Any) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(MINI, spec=SPECS[part], **{part: settings})


def checkpoint(part: str, settings: Any) -> dict[str, Any]:
    made = model(part, settings)
    made.configure_model()
    content: dict[str, Any] = {"state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams)}
    return content


@pytest.mark.parametrize(
    ("part", "asked", "has", "complaint"),
    [
        ("decoder", Decoder(name="fpn"), Decoder(), "model.decoder.name: fpn asked for, the checkpoint has unet"),
        ("decoder", Decoder(width=16), Decoder(), "model.decoder.width: 16 asked for, the checkpoint has 32"),
        ("detector", Detector(name="retinanet"), Detector(), "name: retinanet asked for, the checkpoint has fcos"),
        ("detector", Detector(width=32), Detector(), "model.detector.width: 32 asked for, the checkpoint has 64"),
        ("detector", Detector(depth=1), Detector(), "model.detector.depth: 1 asked for, the checkpoint has 2"),
        ("detector", Detector(finest_stride=8), Detector(), "finest_stride: 8 asked for, the checkpoint has 4"),
        (  # the tensors fit, but say something of other boxes
            "detector",
            Detector(name="retinanet", anchor_scale=8),
            Detector(name="retinanet"),
            "model.detector.anchor_scale: 8.0 asked for, the checkpoint has 4.0",
        ),
    ],
)
def test_another_decoder_or_detector_is_one_line(part, asked, has, complaint):
    with pytest.raises(SettingsError) as raised:
        model(part, asked).restore(checkpoint(part, has))
    (problem,) = raised.value.problems
    assert problem.endswith(complaint)


def test_every_difference_has_a_line():
    with pytest.raises(SettingsError) as raised:
        model("detector", Detector(width=32, depth=1)).restore(checkpoint("detector", Detector()))
    assert [line.split(":")[0] for line in raised.value.problems] == ["model.detector.width", "model.detector.depth"]


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("decoder", Decoder(dropout=0.5)),
        ("detector", Detector(score_threshold=0.5, nms_iou=0.3, max_detections=7)),
    ],
)
def test_what_a_trained_network_is_told_may_differ(part, settings):
    stored = checkpoint(part, type(settings)())
    found = model(part, settings)
    found.restore(stored)
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, stored["state_dict"][name])


@pytest.mark.parametrize("part", SPECS)
def test_a_checkpoint_that_says_nothing_of_them_has_the_usual_ones(part):
    base = {"decoder": Decoder, "detector": Detector}[part]
    stored = checkpoint(part, base())
    del stored["hyper_parameters"][part]
    model(part, base()).restore(stored)
    other = {"decoder": "fpn", "detector": "retinanet"}[part]
    with pytest.raises(SettingsError, match=rf"model\.{part}\.name: {other} asked for"):
        model(part, base(name=other)).restore(stored)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"name": "theirs", "colour": 3}, "model.decoder.name: unet asked for, the checkpoint has theirs"),
        ({"name": "a\x1b[31m"}, r"the checkpoint has a\x1b[31m"),
        ("theirs", "the checkpoint has theirs"),
        (3, "the checkpoint has 3"),
        ({"name": "unet", "width": -1}, "what the checkpoint says of its network cannot be used"),
        ({"name": "unet", "width": {}}, "what the checkpoint says of its network cannot be used"),
    ],
    ids=str,
)
def test_what_a_stranger_says_of_a_decoder_is_one_line(said, complaint):
    stored = checkpoint("decoder", Decoder())
    stored["hyper_parameters"]["decoder"] = said
    with pytest.raises(SettingsError) as raised:
        model("decoder", Decoder()).restore(stored)
    (problem,) = raised.value.problems
    assert complaint in problem
    assert "\n" not in problem
