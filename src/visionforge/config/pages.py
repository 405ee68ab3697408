"""Which page of the documentation explains a setting, an argument, or a kind of error."""

from visionforge.errors import DataError, VisionForgeError, WeightsError

SETTINGS = {  # the longest that a setting begins with → the page that explains it
    "data": "data.md",
    "data.augmentation": "data.md#augmentation",
    "data.fold": "howto/cross-validation.md",
    "data.resize": "data.md#the-size-that-the-network-reads",
    "model": "training.md",
    "model.averaging": "training.md#averaged-weights",
    "model.backbone": "models.md",
    "model.decoder": "howto/segmentation.md",
    "model.detector": "howto/detection.md",
    "model.distillation": "training.md#distillation",
    "model.finetuning": "models.md#freezing-and-staged-unfreezing",
    "model.loss": "training.md#loss",
    "model.mixup": "training.md#mixup-and-cutmix",
    "model.optimizer": "training.md#optimiser",
    "model.schedule": "training.md#schedule",
    "model.tta": "training.md#test-time-augmentation",
    "trainer": "training.md",
    "trainer.deterministic": "training.md#determinism",
    "trainer.devices": "training.md#several-devices",
    "tune": "tuning.md",
    "benchmark": "howto/benchmark.md",
    "evaluation": "evaluation.md",
    "probe": "howto/probe.md",
}
ARGUMENTS = {  # command or argument that a problem begins with, without dashes → the page
    "audit": "howto/audit.md",
    "boxes": "howto/detection.md",
    "corrections": "howto/audit.md",
    "ensemble": "howto/cross-validation.md",
    "folds": "howto/cross-validation.md",
    "format": "export.md",
    "int8": "export.md",
    "margins": "evaluation.md",
    "masks": "howto/segmentation.md",
    "probe": "howto/probe.md",
    "repository": "howto/publish.md",
    "resume": "howto/resume.md",
    "submit": "howto/clusters.md",
}
ERRORS: dict[type[VisionForgeError], str] = {WeightsError: "models.md", DataError: "data.md"}
COMMANDS = {"init": "howto/own-data.md", "datasets import": "howto/own-data.md"}  # whose errors are of other data
TITLES = {  # how the documentation's list of pages names those that errors name, since an installed package has none
    "data.md": "Guide › Data",
    "evaluation.md": "Guide › Evaluation",
    "export.md": "Guide › Export",
    "howto/audit.md": "How-to › Wrong labels",
    "howto/clusters.md": "How-to › Clusters",
    "howto/cross-validation.md": "How-to › Cross-validation and ensembles",
    "howto/detection.md": "How-to › Boxes",
    "howto/own-data.md": "How-to › Your own data",
    "howto/probe.md": "How-to › Probing frozen features",
    "howto/publish.md": "How-to › Publish and fetch",
    "howto/resume.md": "How-to › Continue a run",
    "howto/segmentation.md": "How-to › Masks",
    "models.md": "Guide › Models",
}


def page_of_setting(path: str) -> str:
    """Return the page that explains a setting.

    >>> page_of_setting("model.mixup.alpha")
    'training.md#mixup-and-cutmix'
    """
    if "." not in path:
        return "settings.md"
    return next(page for start, page in sorted(SETTINGS.items(), reverse=True) if path.startswith(start))
