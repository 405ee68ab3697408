"""A name stands for the settings with that name."""

import pytest

from visionforge import ImageClassifier, ImageDataModule, TaskSpec
from visionforge.config.schema import Augmentation, Averaging, Backbone, Loss, Optimizer, Schedule
from visionforge.errors import SettingsError

SPEC = TaskSpec(classes=3, channels=1, resolution=16)


def test_names_mappings_and_objects_mean_the_same():
    named = ImageClassifier("mini_cnn", optimizer="adamw", schedule="one_cycle", loss="focal", averaging="ema")
    mapped = ImageClassifier(
        {"name": "mini_cnn", "pretrained": False},
        optimizer={"name": "adamw"},
        schedule={"name": "one_cycle"},
        loss={"name": "focal"},
        averaging={"name": "ema"},
    )
    made = ImageClassifier(
        Backbone(name="mini_cnn", pretrained=False),
        optimizer=Optimizer(name="adamw"),
        schedule=Schedule(name="one_cycle"),
        loss=Loss(name="focal"),
        averaging=Averaging(name="ema"),
    )
    assert named.settings == mapped.settings == made.settings


def test_a_named_backbone_is_pretrained_where_weights_are_published():
    assert ImageClassifier("resnet18").settings.backbone == Backbone(name="resnet18")
    assert not ImageClassifier("mini_cnn").settings.backbone.pretrained


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"backbone": "resnet81"}, r"model\.backbone\.name: 'resnet81' is unknown; nearest: resnet18"),
        ({"optimizer": "adam"}, r"model\.optimizer\.name: 'adam' is not allowed; .*; nearest: adamw"),
        ({"schedule": "cosin"}, r"model\.schedule\.name: .*; nearest: cosine"),
        ({"loss": "crossentropy"}, r"model\.loss\.name: .*; nearest: cross_entropy"),
        ({"averaging": "emma"}, r"model\.averaging\.name: .*; nearest: ema"),
        ({"mixup": "strong"}, r"model\.mixup\.name: 'strong' is not allowed; allowed: one of mixup"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(given, complaint):
    with pytest.raises(SettingsError, match=complaint) as caught:
        ImageClassifier(**given, spec=SPEC)
    assert len(caught.value.problems) == 1


def test_a_word_is_an_augmentation_preset():
    made = ImageDataModule(dataset="synthetic", augmentation=Augmentation(preset="strong"))
    assert ImageDataModule(dataset="synthetic", augmentation="strong").settings == made.settings
    with pytest.raises(SettingsError, match=r"data\.augmentation\.preset: 'strog' .*; nearest: strong"):
        ImageDataModule(dataset="synthetic", augmentation="strog")
