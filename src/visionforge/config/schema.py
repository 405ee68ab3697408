"""Every setting of visionforge, declared once: its default, bounds, unit and meaning.

The sections are frozen pydantic models and at the same time the types of constructor parameters, so the command line,
the error messages and the reference in the docs all derive from this file.
"""

import re
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

Task = Literal["binary", "multi-class", "multi-label", "ordinal"]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class _Exact(BaseModel):
    """Settings of which an integer is written as one: 16.0, '16' and true are refused, as the command line does."""

    @field_validator("*", mode="before")
    @classmethod
    def _integers_are_written_as_such(cls, value: Any, info: ValidationInfo) -> Any:
        if type(value) in (bool, float, str):
            kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
            if int in kinds and type(value) not in kinds:
                raise PydanticCustomError("int_type", "Input should be an integer")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation allows, those of its literal values included."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(members[0])
    if origin in (Union, UnionType):
        return set().union(*map(_kinds, members))
    return {type(value) for value in members} if origin is Literal else {annotation}


class Section(_Exact):
    """A group of settings: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


Preset = Literal["none", "light", "standard", "strong"]


class Augmentation(Section):
    """Random changes of training images, drawn anew for every image and epoch."""

    preset: Preset | None = Field(
        None, description="A named set of all the values below, which are then left out; null takes them as given."
    )

    hflip: Probability = Field(
        0.5, description="Probability of a left-right flip; off where the data set forbids flips."
    )
    rotation_angle: int = Field(
        10, ge=0, le=180, description="Largest rotation to either side.", json_schema_extra={"unit": "degrees"}
    )
    jitter_val: Probability = Field(
        0.2, description="Strength j of the colour jitter: brightness, contrast and saturation factors from [1-j, 1+j]."
    )
    min_scale: float = Field(
        0.95, gt=0.0, le=1.0, description="Smallest share of the image's area that a random resized crop keeps."
    )
    flip_mode: Literal["random", "alternating"] = Field(
        "random",
        description="alternating flips every image in every other epoch instead of at random, so that two epochs show "
        "both of its orientations.",
    )
    num_ops: int = Field(
        0, ge=0, le=8, description="RandAugment: number of random operations per image, on top of the others."
    )
    magnitude: int = Field(9, ge=0, le=30, description="RandAugment: strength of each operation.")

    @model_validator(mode="after")
    def _preset_stands_alone(self) -> Self:
        if self.preset is not None:
            changed = [n for n, f in type(self).model_fields.items() if n != "preset" and getattr(self, n) != f.default]
            if changed:
                raise ValueError(
                    f"preset {self.preset!r} sets every value, so leave out {', '.join(changed)}, or set preset to null"
                )
        return self

    def resolved(self) -> "Augmentation":
        """Return the values that a preset stands for; without a preset, the values as given."""
        return self if self.preset is None else Augmentation(**PRESETS[self.preset])


PRESETS: dict[str, dict[str, Any]] = {
    "none": {"hflip": 0.0, "rotation_angle": 0, "jitter_val": 0.0, "min_scale": 1.0},
    "light": {"hflip": 0.5, "rotation_angle": 0, "jitter_val": 0.1, "min_scale": 0.95},
    "standard": {},
    "strong": {"hflip": 0.5, "rotation_angle": 15, "jitter_val": 0.3, "min_scale": 0.7, "num_ops": 2, "magnitude": 9},
}


class Synthetic(Section):
    """What the data set `synthetic` renders; other data sets do not read it."""

    task: Task = Field("multi-class", description="Kind of labels.")
    classes: int = Field(
        4, ge=2, le=100, description="Number of classes, labels or grades; a binary task always has 2."
    )
    channels: Literal[1, 3] = Field(3, description="1 renders grey images, 3 renders colour.")
    train: int = Field(256, ge=1, le=1_000_000, description="Training images.")
    val: int = Field(64, ge=1, le=1_000_000, description="Validation images.")
    test: int = Field(64, ge=1, le=1_000_000, description="Test images.")


class DataSettings(Section):
    """Which images are read, and how they become batches."""

    dataset: str = Field("bloodmnist", description="Catalog name; `visionforge datasets list` shows them.")
    root: str | None = Field(
        None,
        description="Folder that holds the archives; null is $VISIONFORGE_DATA, or the project's folder `dataset` if "
        "it has one, or else the user's cache folder.",
    )
    download: bool = Field(True, description="Download a missing archive.")
    resolution: int = Field(
        28,
        ge=8,
        le=1024,
        description="Height and width of the images; the data set must offer it.",
        json_schema_extra={"unit": "pixels"},
    )
    batch_size: int = Field(128, ge=1, le=2048, description="Images per batch and device.")
    num_workers: int = Field(
        0, ge=0, le=64, description="Loader processes; batches come from memory, so 0 is fastest for most."
    )
    cache: Literal["auto", "ram", "mmap", "device"] = Field(
        "auto",
        description="Where the images are kept: in memory, read in slices from a memory map, or on the training GPU; "
        "auto decides by their number and the free memory.",
    )
    balanced_sampling: bool = Field(True, description="Draw training images with weights 1 / class count.")
    max_samples: int | None = Field(
        None, ge=1, description="Keep at most this many training images, a stratified subset; null keeps all."
    )
    force_rgb: bool = Field(True, description="Give grey images three equal channels.")
    augmentation: Augmentation = Field(Augmentation(), description="Random changes of training images.")
    synthetic: Synthetic = Field(Synthetic(), description="What the data set `synthetic` renders.")


class Backbone(Section):
    """The network and where its first weights come from."""

    name: str = Field(
        "resnet18",
        description="Backbone: a registered name (`visionforge models list`), torchvision/NAME or timm/NAME.",
    )
    pretrained: bool = Field(True, description="Start from pretrained weights instead of random ones.")
    weights: str | None = Field(
        None,
        description="Pretrained weights: a tag such as IMAGENET1K_V1, a .pth or .safetensors file, the folder or "
        "checkpoint of another run, or https://HOST/FILE#sha256=DIGEST; null is the backbone's default.",
    )
    dropout: float = Field(0.0, ge=0.0, le=0.9, description="Dropout probability in front of the classifier.")
    adapt_stem: bool = Field(
        True,
        description="Below 112 pixels, divide the stem's downsampling by 2 or 4, so that the first stage sees "
        "a map of useful size.",
    )


class Finetuning(Section):
    """Training the classifier alone first, then the backbone, from its last stage to its first."""

    freeze_epochs: int = Field(
        0,
        ge=0,
        description="In this many first epochs only the classifier is trained; 0 freezes nothing.",
        json_schema_extra={"unit": "epochs"},
    )
    stage_epochs: int = Field(
        0,
        ge=0,
        description="Epochs from the unfreezing of one stage to that of the stage in front of it; 0 unfreezes all "
        "at once.",
        json_schema_extra={"unit": "epochs"},
    )
    backbone_rate: float = Field(
        1.0, gt=0.0, le=1.0, description="Learning rate of the backbone, as a share of the classifier's."
    )


class Optimizer(Section):
    """The rule that turns gradients into weight updates."""

    name: Literal["sgd", "adamw", "muon"] = Field(
        "sgd",
        description="SGD with momentum; AdamW; or Muon, which orthogonalises the momentum of hidden weights and leaves "
        "the rest to AdamW.",
    )
    learning_rate: float = Field(
        0.008, gt=1e-8, lt=1.0, description="Initial, or after a warm-up highest, learning rate."
    )
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Momentum of SGD and Muon, and AdamW's beta 1.")
    nesterov: bool = Field(False, description="Nesterov's form of the momentum of SGD and Muon.")
    beta2: float = Field(0.999, ge=0.0, lt=1.0, description="AdamW's beta 2, also of the part that Muon leaves to it.")
    weight_decay: float = Field(
        5e-4, ge=0.0, le=0.2, description="L2 regularisation under SGD, decoupled decay under AdamW and Muon."
    )
    decay_norm_bias: bool = Field(True, description="Decay the weights of normalisation layers and the biases as well.")


class Schedule(Section):
    """How the learning rate changes over the steps of the training."""

    name: Literal["cosine", "constant", "step", "one_cycle"] = Field(
        "cosine",
        description="Half a cosine down to `min_lr`; no change; a factor every few epochs; or up and down again "
        "in one cycle.",
    )
    min_lr: float = Field(1e-6, gt=0.0, lt=1.0, description="Lowest learning rate; below the initial one.")
    warmup_epochs: int = Field(
        0,
        ge=0,
        description="Epochs in which the learning rate first rises linearly.",
        json_schema_extra={"unit": "epochs"},
    )
    cosine_fraction: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Share of the training that follows the cosine; in the rest the rate stays, and falls by `gamma` "
        "where the validation AUC does not improve any more.",
    )
    scheduler_patience: int = Field(
        5,
        ge=0,
        description="After the cosine: epochs without improvement that are waited for before the rate falls.",
        json_schema_extra={"unit": "epochs"},
    )
    gamma: float = Field(0.1, gt=0.0, lt=1.0, description="Factor of one fall of `step` and after the cosine.")
    step_epochs: int = Field(
        30, ge=1, description="Epochs between two falls of `step`.", json_schema_extra={"unit": "epochs"}
    )
    rise_fraction: float = Field(0.3, gt=0.0, lt=1.0, description="Share of the training in which `one_cycle` rises.")


ClassWeights = Literal["none", "balanced", "effective-number"] | dict[str, Annotated[float, Field(gt=0.0, le=1e6)]]


class Loss(Section):
    """What is minimised."""

    name: Literal["auto", "cross_entropy", "bce", "focal", "ordinal"] = Field(
        "auto",
        description="Cross-entropy; binary cross-entropy per label of multi-label data; focal loss; or cumulative "
        "logits for ordered grades. auto is bce for multi-label data and cross_entropy for all other.",
    )
    label_smoothing: float = Field(0.0, ge=0.0, le=0.3, description="Share of the target spread over all classes.")
    class_weights: ClassWeights = Field(
        "none",
        description="Weight per class: none; balanced is inverse to the class count; effective-number after Cui et al. "
        "(2019); or a mapping of class names to weights, 1 for a class that is left out.",
    )
    effective_beta: float = Field(
        0.999, gt=0.0, lt=1.0, description="Beta of effective-number; the nearer to 1, the nearer to balanced."
    )
    focal_gamma: float = Field(
        2.0, ge=0.0, le=10.0, description="Focusing exponent of the focal loss; 0 is cross-entropy."
    )


class MixUp(Section):
    """Mixed training pairs: MixUp (Zhang et al., 2018, 1710.09412) and CutMix (Yun et al., 2019, 1905.04899)."""

    alpha: Probability = Field(0.002, description="MixUp: mixing weight ~ Beta(alpha, alpha); 0 turns it off.")
    cutmix_alpha: Probability = Field(
        0.0, description="CutMix: share that stays ~ Beta(cutmix_alpha, cutmix_alpha); 0 turns it off."
    )
    cutmix_prob: Probability = Field(0.5, description="Where both are on: probability of CutMix instead of MixUp.")
    per_image: bool = Field(False, description="Draw anew for every image instead of once per batch.")
    mixup_epochs: int | None = Field(
        None,
        ge=0,
        description="Mix in this many first epochs; null mixes in all.",
        json_schema_extra={"unit": "epochs"},
    )


class Averaging(Section):
    """Averages of the weights over the training, which are then what is validated, tested and saved."""

    name: Literal["none", "ema", "swa"] = Field(
        "none",
        description="ema: an exponential moving average of every step; swa: the mean of the epochs' last weights.",
    )
    decay: float = Field(0.999, gt=0.0, lt=1.0, description="Share of the old average in every step of ema.")
    start_epoch: int = Field(
        0, ge=0, description="First epoch (from 0) that is averaged.", json_schema_extra={"unit": "epochs"}
    )


TtaMode = Literal["full", "light", "off"]


class ModelSettings(Section):
    """The network, how it is trained, and how it predicts."""

    backbone: Backbone = Field(Backbone(), description="The network and its first weights.")
    finetuning: Finetuning = Field(Finetuning(), description="Freezing and staged unfreezing of the backbone.")
    optimizer: Optimizer = Field(Optimizer(), description="The optimiser.")
    schedule: Schedule = Field(Schedule(), description="The learning-rate schedule.")
    loss: Loss = Field(Loss(), description="The loss.")
    mixup: MixUp = Field(MixUp(), description="Mixing of training pairs.")
    averaging: Averaging = Field(Averaging(), description="Averaging of the weights.")
    tta: TtaMode = Field(
        "full",
        description="Test-time augmentation, the mean probabilities of several views: full; light, flips only; or off. "
        "true is full, false is off.",
    )
    tta_weight: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="Weight of the image itself among its views; null gives every view the same.",
    )

    @field_validator("tta", mode="before")
    @classmethod
    def _tta_as_switch(cls, value: Any) -> Any:
        return {True: "full", False: "off"}[value] if isinstance(value, bool) else value


class TrainerSettings(_Exact):
    """The Trainer flags that visionforge bounds or gives a default; all other Trainer flags pass through."""

    model_config = ConfigDict(frozen=True, extra="allow")

    max_epochs: int = Field(60, ge=1, le=1000, description="Training epochs.", json_schema_extra={"unit": "epochs"})
    accelerator: str = Field("auto", description="cpu, gpu, mps, …; auto takes the best one present.")
    devices: int | str | list[int] = Field("auto", description="Number or list of devices.")
    num_nodes: int = Field(1, ge=1, description="Machines.")
    precision: int | str | None = Field("32-true", description="Numeric precision; 16-mixed needs a GPU.")
    deterministic: bool | Literal["warn"] | None = Field(
        False, description="Bit-identical repeats, at the price of slower kernels."
    )
    accumulate_grad_batches: int = Field(
        1, ge=1, description="Batches whose mean gradient is one optimiser step; the last group of an epoch has fewer."
    )
    gradient_clip_val: float | None = Field(None, ge=0.0, description="Largest gradient; null and 0 clip nothing.")


Scalar = bool | int | float | str | None


class Dimension(Section):
    """One parameter of the search: either a range, or choices."""

    low: float | None = Field(None, description="Lowest value of a range.")
    high: float | None = Field(None, description="Highest value of a range.")
    log: bool = Field(False, description="Search a range on a logarithmic scale.")
    step: float | None = Field(None, gt=0.0, description="Distance of the values of a range; null searches all.")
    choices: tuple[Scalar, ...] | None = Field(None, min_length=1, description="The values of a choice.")

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        bounds = (self.low, self.high)
        if self.choices is not None:
            if bounds != (None, None) or self.log or self.step is not None:
                raise ValueError("choices stand alone, without low, high, log and step")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError("choices must differ from each other")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give either low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low ({self.low:g}) must be above 0 with log")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together")
        return self


TuneMetric = Literal["val/auc", "val/accuracy", "val/loss"]
SecondMetric = Literal["multiply_adds", "parameters"]


class TuneSettings(Section):
    """The search of `visionforge tune`; all other commands pass over it."""

    n_trials: int = Field(50, ge=1, le=100_000, description="Trials of the whole study, over all workers and resumes.")
    preset: Literal["quick", "full", "architectures", "none"] = Field(
        "full",
        description="quick: learning rate, weight decay, batch size, dropout; full: thirteen parameters; "
        "architectures: quick and the backbone; none: only `space`.",
    )
    space: dict[str, Dimension | None] = Field(
        {},
        description="Dotted setting → `{low, high, log, step}` or `{choices}`; adds to the preset or replaces its "
        "range, null takes a parameter out.",
    )
    pool: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Backbones of `architectures`; null takes all built-in ones that fit the images.",
    )
    metric: TuneMetric = Field("val/auc", description="What is searched for; the best epoch of a trial counts.")
    second_metric: SecondMetric | None = Field(None, description="Second objective, which is kept low (nsgaii).")
    epochs: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Epochs of a trial; null is trainer.max_epochs.",
        json_schema_extra={"unit": "epochs"},
    )
    sampler: Literal["tpe", "random", "cmaes", "gp", "grid", "nsgaii"] = Field(
        "tpe", description="How values are proposed; tpe is multivariate."
    )
    pruner: Literal["median", "percentile", "hyperband", "patient", "none"] = Field(
        "median", description="How poor trials are ended early."
    )
    n_startup_trials: int = Field(
        5, ge=0, description="Trials that are finished before the pruner begins; tpe and gp start at random as long."
    )
    n_warmup_epochs: int = Field(
        3, ge=0, description="Epochs of a trial in which it is not pruned.", json_schema_extra={"unit": "epochs"}
    )
    percentile: float = Field(25.0, gt=0.0, lt=100.0, description="percentile: share of trials that may go on, in %.")
    patience: int = Field(
        3, ge=1, description="patient: epochs without improvement.", json_schema_extra={"unit": "epochs"}
    )
    target: float | None = Field(
        0.9999, description="Stop when the metric is as good as this; null never stops. Not used for val/loss."
    )
    target_trials: int = Field(3, ge=1, description="Trials that have to be finished before `target` stops the search.")
    timeout_minutes: float | None = Field(
        None, gt=0.0, description="Begin no trial after this time.", json_schema_extra={"unit": "minutes"}
    )
    max_failures: int = Field(5, ge=1, description="Stop after this many failed trials in a row.")
    study: str | None = Field(
        None, description="Name of the study; null is made of data set, backbone and a digest of what is searched."
    )
    storage: str | None = Field(
        None,
        description="Database: null is SQLite in the study's folder, `journal` a journal file there, or any URL of "
        "Optuna's, such as postgresql://USER@HOST/NAME.",
    )
    workers: int = Field(1, ge=1, le=256, description="Processes on this machine that share the study.")
    heartbeat_seconds: int = Field(
        60,
        ge=1,
        le=3600,
        description="Interval of the sign of life of a trial; one that is silent for twice as long is retried.",
        json_schema_extra={"unit": "seconds"},
    )
    refit: bool = Field(False, description="At the end, train the best trial for trainer.max_epochs and test it.")

    @field_validator("study")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value):
            raise ValueError(f"{value!r} is not allowed; letters, digits, _, . and -, at most 100, no / in it")
        return value


class EvaluationSettings(Section):
    """What is reported of a trained network; nothing here changes it."""

    resamples: int = Field(
        2000, ge=0, le=100_000, description="Bootstrap resamples from which intervals are computed; 0 gives none."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Share of the resamples that an interval holds.")
    report: bool = Field(True, description="Write report.html and reports/training_summary.xlsx.")
    figures: bool = Field(True, description="Write the pictures in figures/.")
    figure_dpi: int = Field(
        150,
        ge=50,
        le=1200,
        description="Resolution of the pictures in figures/; papers want 300.",
        json_schema_extra={"unit": "dots per inch"},
    )
    explanations: int = Field(
        8, ge=0, le=64, description="Images of the report beside which it shows where the network looked; 0 shows none."
    )


class RunSettings(Section):
    """One configuration: the same keys as the YAML file and the command line."""

    imports: tuple[str, ...] = Field(
        (), description="Python modules or files to import first: what they register is known by name."
    )
    seed_everything: int = Field(42, ge=0, le=2**32 - 1, description="Seed of everything that is random.")
    data: DataSettings = Field(DataSettings(), description="Images and batches.")
    model: ModelSettings = Field(ModelSettings(), description="Network and training.")
    trainer: TrainerSettings = Field(TrainerSettings(), description="Flags of the Lightning Trainer.")
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="What is reported.")
    tune: TuneSettings = Field(TuneSettings(), description="The search of `visionforge tune`.")
    ckpt_path: str | None = Field(None, description="Checkpoint: best, last or a file.")
    resume: str | None = Field(
        None,
        description="Run to continue: its folder or name; auto continues the newest interrupted run of the same "
        "settings, if there is one; never begins a new run also where one was interrupted.",
    )
    checkpoint_minutes: float = Field(
        10.0,
        gt=0.0,
        le=1440.0,
        description="Longest time between two checkpoints; every epoch ends with one anyway.",
        json_schema_extra={"unit": "minutes"},
    )
    exclusive_device: bool = Field(
        False, description="Wait until no other run of this user with this flag is on the same device."
    )
    device_wait: float = Field(
        3600.0,
        ge=0.0,
        le=604800.0,
        description="Longest wait for a device under `exclusive_device`.",
        json_schema_extra={"unit": "seconds"},
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity of what the console shows; run.log has everything from info on."
    )
