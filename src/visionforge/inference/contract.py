"""What an artifact says of itself: what it takes, what it gives, where it comes from; it travels inside the file."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

import visionforge
from visionforge.config.publishable import without_places
from visionforge.config.schema import ModelSettings, Section
from visionforge.data.info import TaskSpec
from visionforge.distribution import newer
from visionforge.errors import RunError
from visionforge.inference.predictions import DISAGREEMENT
from visionforge.models.stored_head import StoredHead
from visionforge.reading import UnreadableError, read_json_text
from visionforge.training.member_inputs import MOST_MEMBERS, MemberInput

if TYPE_CHECKING:
    from visionforge.training.task_network import TaskNetwork

FORMAT = 1
KEY = "visionforge"  # of the metadata entry that holds the contract as JSON
Share = Annotated[float, Field(ge=0, le=1)]
InputKind = Literal["uint8", "float32"]
SQUARES = {
    "crop": "scale the shorter side to {r} pixels (antialiased bicubic), cut the middle {r}×{r} out",
    "pad": "scale the longer side to {r} pixels (antialiased bicubic), fill up with black below or at the right",
}
RESIZE = "turn upright (EXIF), {square}; transparency on black; {deep}"
DEEP = (
    "grey integers from 0 to 65,535 are divided so that the largest number of 8, 10, 12, 14 or "
    "16 bits (the fewest that hold the picture) becomes 255, other depths are scaled from the picture's own range; of "
    "DICOM files by their own window or table where they have one, in the units of the modality, MONOCHROME1 inverted"
)
RANGE = "of grey values of more than 8 bits, {low:g} becomes 0 and {high:g} becomes 255, what is beyond them, too"
RESIZE_VOLUMES = (
    "arrays have {r}×{r}×{r} voxels as they are; of a NIfTI file, cut the largest middle cube in millimetres out and "
    "resample it to {r}×{r}×{r} voxels (antialiased, trilinear), depth from feet to head, height from front to back, "
    "width from the right to the left of the patient; uint8 without a slope stays, {deep}"
)
PERCENTILES = "other values are scaled so that the 0.5th and 99.5th percentiles of the cube become 0 and 255"


class SetsContract(Section):
    """How the sets of classes inside an artifact are made; see `visionforge.training.conformal.ConformalSets`."""

    method: Literal["split", "class", "aps", "raps"]
    coverage: Share
    images: int = Field(ge=1)
    thresholds: tuple[float | None, ...] = Field(min_length=1)
    penalty: float = Field(ge=0)
    rank: int = Field(ge=0)


class OutlierContract(Section):
    """How far out images are; see `visionforge.training.outliers.Outliers`, whose tensors are in the artifact."""

    method: Literal["energy", "max_logit", "mahalanobis", "knn"]
    threshold: float
    validation_images: int = Field(ge=1)


class Contract(Section):
    """The contract of an artifact.

    Attributes are those of its JSON. `views` are the test-time views that its probabilities are averaged over, the
    image itself first; `temperature` is that of this average, and `thresholds` are those of labels before calibration.
    `sets`, `abstain_below` and `ood` are what it says beside the probabilities, if anything.
    """

    format_version: Literal[1] = 1
    spec: TaskSpec
    settings: ModelSettings
    input: InputKind = "uint8"
    views: tuple[str, ...] = ("identity",)
    members: tuple[ModelSettings, ...] = Field((), max_length=MOST_MEMBERS)
    inputs: tuple[MemberInput, ...] = Field((), max_length=MOST_MEMBERS)
    heads: tuple[StoredHead | None, ...] = Field((), max_length=MOST_MEMBERS)
    temperature: float | None = Field(None, gt=0)
    thresholds: tuple[Share, ...] | None = None
    sets: SetsContract | None = None
    abstain_below: Share | None = None
    ood: OutlierContract | None = None
    run: str | None = None
    config_hash: str | None = None
    checkpoint: str | None = None
    version: str = visionforge.__version__

    @model_validator(mode="after")
    def _has_a_threshold_per_label(self) -> Self:
        if not self.spec.kind.calibrates and (self.temperature is not None or self.thresholds is not None):
            raise ValueError(f"a temperature or thresholds, which {self.spec.task} has not")
        if not self.spec.kind.abstains and (self.sets is not None or self.ood is not None):
            raise ValueError(f"sets of classes or ood_score, which {self.spec.task} has not")
        if self.sets is not None and len(self.sets.thresholds) not in (1, len(self.spec.classes)):
            raise ValueError(f"{len(self.sets.thresholds)} thresholds of sets for {len(self.spec.classes)} classes")
        if self.thresholds is not None and len(self.thresholds) != len(self.spec.classes):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.spec.classes)} labels")
        return self

    @property
    def shape(self) -> tuple[str, *tuple[int, ...]]:
        """Return the shape of the input, batch first."""
        sides: tuple[int, ...] = (self.spec.channels, *(self.spec.resolution,) * self.spec.spatial_dims)
        return ("batch", *sides)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return what the artifact gives, the probabilities first."""
        further = [name for name, given in (("set", self.sets), ("ood_score", self.ood)) if given is not None]
        return (self.spec.kind.output_name, *further, *([DISAGREEMENT] if self.disagrees else []))

    @property
    def disagrees(self) -> bool:
        """Return whether it says how far the networks of an ensemble disagree."""
        return bool(self.members) and self.spec.kind.calibrates

    def _further(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if self.sets is not None:
            meaning = (
                f"the classes of the set that holds the true one of {self.sets.coverage:g} of images like the "
                f"{self.sets.images:,} validation images ({self.sets.method}); abstain where it holds anything but the "
                "most probable class alone"
            )
            found.append(
                {"name": "set", "type": "bool", "shape": ["batch", len(self.spec.classes)], "meaning": meaning}
            )
        if self.ood is not None:
            meaning = (
                f"how far the image is from those of the training ({self.ood.method}); 95 % of the validation images "
                f"have at most {self.ood.threshold:.6g}"
            )
            threshold = {"threshold": self.ood.threshold}
            found.append({"name": "ood_score", "type": "float32", "shape": ["batch"], "meaning": meaning, **threshold})
        if self.disagrees:
            meaning = (
                f"by how much the {len(self.members)} networks differ on the image: mutual information in nats, 0 "
                "where all say the same"
            )
            found.append({"name": DISAGREEMENT, "type": "float32", "shape": ["batch"], "meaning": meaning})
        return found

    def _resize(self) -> str:
        spec = self.spec
        text = RESIZE_VOLUMES if spec.spatial_dims == 3 else RESIZE.replace("{square}", SQUARES[spec.fit])
        deep = PERCENTILES if spec.spatial_dims == 3 else DEEP
        if spec.intensity is not None:
            deep = RANGE.format(low=spec.intensity[0], high=spec.intensity[1])
        return text.format(r=spec.resolution, deep=deep)

    def as_text(self) -> dict[str, Any]:
        """Return what a reader of `export.json` needs to know to use the artifact."""
        values = "0 to 255" if self.input == "uint8" else "0 to 1, which is a pixel value divided by 255"
        return {
            "input": {
                "name": "images",
                "type": self.input,
                "shape": list(self.shape),
                "values": values,
                "channels": "red, green, blue; grey images have three equal ones"
                if self.spec.channels == 3
                else "grey",
                "resize": self._resize(),
            },
            "output": {
                "name": self.spec.kind.output_name,
                "type": "float32",
                "shape": ["batch", *self.spec.kind.output_shape(self.spec, self.settings)],
                "meaning": self.spec.kind.output_meaning,
                "classes": list(self.spec.classes),
                "positive": self.spec.classes[self.spec.positive_index] if self.spec.kind.has_positive else None,
                "thresholds": None if self.thresholds is None else list(self.thresholds),
            },
            "further_outputs": self._further(),
            "abstain_below": self.abstain_below,
            "inside": {
                "mean": list(self.spec.mean),
                "std": list(self.spec.std),
                "resize": None if self.spec.resize.size is None else self.spec.resize.model_dump(),
                "views": list(self.views),
                "temperature": self.temperature,
                "averaged_weights": self.settings.averaging.name,
                **({"networks": [each.model_dump(mode="json") for each in self.inputs]} if self.inputs else {}),
            },
        }


def contract_of(
    model: "TaskNetwork", kind: InputKind, run: str | None, config_hash: str | None, checkpoint: str | None
) -> Contract:
    """Return the contract of a model's artifact.

    Args:
        model: The model; its setting of test-time augmentation says which views the artifact has inside.
        kind: What the artifact takes.
        run: Name of the run.
        config_hash: Digest of its configuration.
        checkpoint: Name of the checkpoint.
    """
    from visionforge.inference.predictor import thresholds_of
    from visionforge.training.tta import named_views

    spec, calibration = model.spec, model.calibration
    assert spec is not None
    views = tuple(named_views(spec, model.settings.tta, spec.resolution))
    temperature = None
    if calibration is not None:
        temperature = calibration.temperature if len(views) == 1 else calibration.temperature_tta
    thresholds, ood = thresholds_of(model, len(views) > 1), model.outliers
    sets = None if calibration is None else calibration.sets if len(views) == 1 else calibration.sets_tta
    return Contract(
        spec=spec,
        settings=_given_away(model.settings),
        members=tuple(map(_given_away, model.members)),
        inputs=model.inputs,
        heads=model.heads,
        input=kind,
        views=views,
        temperature=temperature,
        thresholds=None if thresholds is None else tuple(thresholds.tolist()),
        sets=None if sets is None else SetsContract(**asdict(sets)),
        abstain_below=None if calibration is None else calibration.abstain_below,
        ood=None if ood is None or ood.threshold is None else OutlierContract(**ood.reported()),
        run=run,
        config_hash=config_hash,
        checkpoint=checkpoint,
    )


def _given_away(settings: ModelSettings) -> ModelSettings:
    """Return settings that tell no folder or host of this machine: of the weights it began with, the name stays."""
    tree = settings.model_dump(mode="json")
    clean = without_places(tree)
    return settings if clean == tree else ModelSettings.model_validate(clean)


def read_contract(text: str | None, where: str) -> Contract:
    """Return the contract that an artifact holds.

    Raises:
        RunError: If it holds none, or one that this version does not know.
    """
    if text is None:
        raise RunError(f"{where}: was not exported by visionforge: it does not say what it takes and gives")
    try:
        written = read_json_text(text)
    except UnreadableError as error:
        raise RunError(f"{where}: its metadata cannot be read ({error})") from error
    if isinstance(written, dict) and (problem := newer(written.get("format_version"), FORMAT, written.get("version"))):
        raise RunError(f"{where}: {problem}")
    try:
        return Contract.model_validate_json(text)
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise RunError(f"{where}: its metadata cannot be read ({reason})") from error
