"""Settings of the network, how it is trained, and how it predicts."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator

from visionforge.config.schema.base import Section
from visionforge.config.schema.components import Component, Family
from visionforge.config.schema.tasks import TaskName

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from lightning.pytorch.callbacks import Callback
    from torch import Tensor, nn

AUTO: Literal["auto"] = "auto"  # of `model.backbone.pretrained`

Momentum = Annotated[float, Field(ge=0.0, lt=1.0, description="Momentum of SGD and Muon, and AdamW's beta 1.")]
Nesterov = Annotated[bool, Field(description="Nesterov's form of the momentum of SGD and Muon.")]
Beta2 = Annotated[float, Field(ge=0.0, lt=1.0, description="AdamW's beta 2, also of the part that Muon leaves to it.")]
LowestRate = Annotated[float, Field(gt=0.0, lt=1.0, description="Lowest learning rate; below the initial one.")]
WarmupEpochs = Annotated[
    int,
    Field(
        ge=0,
        description="Epochs in which the learning rate first rises linearly.",
        json_schema_extra={"unit": "epochs"},
    ),
]
Gamma = Annotated[float, Field(gt=0.0, lt=1.0, description="Factor of one fall of `step` and after the cosine.")]
StartEpoch = Annotated[
    int, Field(ge=0, description="First epoch (from 0) that is averaged.", json_schema_extra={"unit": "epochs"})
]
DecoderWidth = Annotated[
    int,
    Field(
        ge=8,
        le=256,
        description="Channels: of unet at the finest level, by default 32, and twice as many at each one below, up to "
        "256; of fpn at every level, by default 64.",
    ),
]
AnchorScale = Annotated[
    float,
    Field(
        gt=0.0,
        le=32.0,
        description="Side of the smallest anchors of retinanet and faster_rcnn, in pixels of the map that they lie on.",
    ),
]


VolumeConvolution = Literal["3d", "acs"]
PixelConstants = Literal["dataset", "weights"]


class Backbone(Section):
    """The network and where its first weights come from."""

    name: str = Field(
        default="resnet18",
        description="Backbone: a registered name (`visionforge models list`), torchvision/NAME or timm/NAME.",
    )
    pretrained: bool | Literal["auto"] = Field(
        default=AUTO,
        description="Start from pretrained weights instead of random ones. auto does where weights of this backbone "
        "are published, fit the images' channels, and are on this machine or can be downloaded; what it has become is "
        "what a run stores.",
    )
    weights: str | None = Field(
        default=None,
        description="Pretrained weights: a tag such as IMAGENET1K_V1, a .pth or .safetensors file, the folder or "
        "checkpoint of another run, package:NAME (an installed package), hf-hub:OWNER/NAME[@REVISION] (the Hugging "
        "Face Hub), or https://HOST/FILE#sha256=DIGEST; null is the backbone's default.",
    )
    normalisation: PixelConstants = Field(
        default="dataset",
        description="What pixels are normalised by: dataset, mean and deviation of the training images; or weights, "
        "the constants that the backbone's published weights were trained with, in grey their means.",
    )
    dropout: float = Field(default=0.0, ge=0.0, le=0.9, description="Dropout probability in front of the classifier.")
    adapt_stem: bool = Field(
        default=True,
        description="Below 112 pixels, or volumes of 56, divide the stem's downsampling by 2 or 4, so that the first "
        "stage sees a map of useful size.",
    )
    volume_convolution: VolumeConvolution = Field(
        default="3d",
        description="What the k×k kernels of a network become in that for volumes: 3d, k×k×k, pretrained ones "
        "inflated; or acs, k×k in three directions (axial, coronal, sagittal), pretrained ones as they are.",
    )

    _from_scratch: str | None = PrivateAttr(default=None)  # why `auto` means random weights


class Decoder(Component):
    """What turns the backbone's feature maps into logits of every pixel, where a task has masks.

    A kind has `build`.
    """

    family: ClassVar[Family] = Family("model.decoder", "unet", "visionforge.models.decoders", "a decoder")
    required: ClassVar[tuple[str, ...]] = ("build",)
    adjustable: ClassVar[tuple[str, ...]] = ("dropout",)  # fields in which a network may differ from its checkpoint

    dropout: float = Field(
        default=0.0, ge=0.0, le=0.9, description="Dropout probability of the channels in front of the last convolution."
    )

    def build(
        self, channels: "Sequence[int]", strides: "Sequence[int]", outputs: int, spatial_dims: int = 2
    ) -> "nn.Module":
        """Return the decoder with random weights.

        It is called with a list of feature maps, (N, C, H, W) each from the finest to the coarsest, and the sides of
        the images (H, W), and returns logits (N, K, H, W). Of volumes there is a depth D in front of H.

        Args:
            channels: Of each map.
            strides: Input pixels per pixel of each map, a power of two; the finest may be 1.
            outputs: Number of logits K.
            spatial_dims: 2 for images, 3 for volumes.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.build")


class Detector(Component):
    """What finds boxes in the backbone's feature maps, where a task has boxes; a feature pyramid lies in between.

    A kind has `build`.
    """

    family: ClassVar[Family] = Family("model.detector", "fcos", "visionforge.models.detectors", "a detector")
    required: ClassVar[tuple[str, ...]] = ("build",)
    adjustable: ClassVar[tuple[str, ...]] = ("score_threshold", "nms_iou", "max_detections")  # see `Decoder`

    width: int = Field(
        default=64, ge=32, le=256, multiple_of=32, description="Channels of the feature pyramid and of the heads on it."
    )
    finest_stride: int = Field(
        default=4,
        ge=1,
        le=32,
        description="Of the backbone's feature maps, those are used that have at least this many pixels of the image "
        "per pixel; finer ones help with tiny objects, and cost time.",
        json_schema_extra={"unit": "pixels"},
    )
    score_threshold: float = Field(
        default=0.05, ge=0.0, lt=1.0, description="Boxes with a lower score are not predicted."
    )
    nms_iou: float = Field(
        default=0.6,
        gt=0.0,
        le=1.0,
        description="Of two predicted boxes of a class with a higher IoU, the one with the lower score is left out.",
    )
    max_detections: int = Field(default=100, ge=1, le=1000, description="Most predicted boxes of an image.")

    def build(self, strides: "Sequence[int]", classes: int, resolution: int) -> "nn.Module":
        """Return the detector with random weights, a `visionforge.models.detector_heads.Head`.

        Args:
            strides: Input pixels per pixel of each map of the pyramid, from the finest to the coarsest.
            classes: Number of classes K; there is no background among them.
            resolution: Height and width of the images in pixels.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.build")


class Finetuning(Section):
    """Training the classifier alone first, then the backbone, from its last stage to its first."""

    freeze_epochs: int = Field(
        default=0,
        ge=0,
        description="In this many first epochs only the classifier is trained; 0 freezes nothing.",
        json_schema_extra={"unit": "epochs"},
    )
    stage_epochs: int = Field(
        default=0,
        ge=0,
        description="Epochs from the unfreezing of one stage to that of the stage in front of it; 0 unfreezes all "
        "at once.",
        json_schema_extra={"unit": "epochs"},
    )
    backbone_rate: float = Field(
        default=1.0, gt=0.0, le=1.0, description="Learning rate of the backbone, as a share of the classifier's."
    )
    batch_norm: Literal["auto", "update", "keep"] = Field(
        default="auto",
        description="Statistics of batch normalisation in the training: update measures them in every batch, keep uses "
        "those that the backbone has brought; auto is keep after a linear probe, whose features depend on them.",
    )


class Optimizer(Component):
    """The rule that turns gradients into weight updates.

    A kind has `build`, which is given parameter groups: dictionaries as ``torch.optim`` takes them, with `params`, `lr`
    and, of parameters that are not to decay, `weight_decay`.
    """

    family: ClassVar[Family] = Family("model.optimizer", "sgd", "visionforge.training.optimizers", "an optimiser")
    required: ClassVar[tuple[str, ...]] = ("build",)
    marks_hidden: ClassVar[bool] = False  # groups say in `orthogonal` whether they hold weights of hidden layers

    learning_rate: float = Field(
        default=0.008, gt=1e-8, lt=1.0, description="Initial, or after a warm-up highest, learning rate."
    )
    weight_decay: float = Field(
        default=5e-4, ge=0.0, le=0.2, description="L2 regularisation under SGD, decoupled decay under AdamW and Muon."
    )
    decay_norm_bias: bool = Field(
        default=True, description="Decay the weights of normalisation layers and the biases as well."
    )
    rate_scaling: Literal["none", "linear", "sqrt"] = Field(
        default="none",
        description="What more images a step do to the learning rate: linear multiplies it by their ratio to "
        "`reference_batch_size` (Goyal et al., 2017, arXiv:1706.02677), sqrt by its root (Krizhevsky, 2014, "
        "arXiv:1404.5997).",
    )
    reference_batch_size: int = Field(
        default=128, ge=1, le=1 << 20, description="Images a step that `learning_rate` is meant for."
    )

    def rate_for(self, images: int) -> float:
        """Return the learning rate of steps of so many images, of all devices and accumulated batches together."""
        ratio = images / self.reference_batch_size
        return self.learning_rate * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[self.rate_scaling]

    def build(self, groups: "list[dict[str, Any]]") -> "torch.optim.Optimizer":
        """Return the optimiser for these parameter groups."""
        raise NotImplementedError(f"{type(self).__qualname__}.build")


@dataclass(frozen=True)
class Plateau:
    """When the rate falls because nothing improves.

    Attributes:
        begins: Share of the training after which it may.
        patience: Epochs without improvement that are waited for.
        factor: Factor of one fall.
    """

    begins: float
    patience: int
    factor: float


class Schedule(Component):
    """How the learning rate changes over the steps of the training.

    A kind has `rate`; one with the field `warmup_epochs` is warmed up, one with a `plateau` listens to the validation.
    """

    family: ClassVar[Family] = Family("model.schedule", "cosine", "visionforge.training.schedules", "a schedule")
    required: ClassVar[tuple[str, ...]] = ("rate",)

    @property
    def warmup(self) -> int:
        """Return the epochs in which the rate first rises linearly."""
        return int(getattr(self, "warmup_epochs", 0))

    @property
    def lowest(self) -> float:
        """Return the rate below which nothing makes it fall."""
        return float(getattr(self, "min_lr", 0.0))

    @property
    def plateau(self) -> Plateau | None:
        """Return when the rate falls because nothing improves; None if it never does."""
        return None

    def rate(self, step: float, steps: float, high: float, steps_per_epoch: float, warmup_steps: float) -> float:
        """Return the learning rate of a step.

        Args:
            step: Optimiser steps since the warm-up.
            steps: Optimiser steps from the warm-up to the end of the training.
            high: Highest rate, that of the optimiser.
            steps_per_epoch: Optimiser steps of one epoch.
            warmup_steps: Optimiser steps of the warm-up.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.rate")


OverlapSmoothing = Annotated[
    float,
    Field(
        gt=0.0,
        le=1e6,
        description="Added above and below in Dice and Tversky, so that an absent class costs nothing.",
        json_schema_extra={"unit": "pixels"},
    ),
]
TverskyAlpha = Annotated[
    float, Field(ge=0.0, le=100.0, description="Cost of pixels that are wrongly said to be of a class.")
]
TverskyBeta = Annotated[float, Field(gt=0.0, le=100.0, description="Cost of pixels of a class that are missed.")]
ClassWeights = Literal["none", "balanced", "effective-number"] | dict[str, Annotated[float, Field(gt=0.0, le=1e6)]]


class Loss(Component):
    """What is minimised.

    A kind says in `tasks` which tasks it fits, by their names or the forms of their labels: ``classes``, ``labels``,
    ``grades``, ``masks``, ``boxes``. One of another package has `loss`; see there.
    """

    family: ClassVar[Family] = Family("model.loss", "auto", "visionforge.training.losses", "a loss")
    required: ClassVar[tuple[str, ...]] = ("loss",)
    tasks: ClassVar[tuple[str, ...]] = ()
    cumulative: ClassVar[bool] = False  # outputs are K-1 logits of "the grade is above k"
    weighs: ClassVar[bool] = True  # it reads class weights and label smoothing
    smooths: ClassVar[bool] = False  # of masks, it smooths the targets itself, and is given them as they are

    label_smoothing: float = Field(
        default=0.0, ge=0.0, le=0.3, description="Share of the target spread over all classes."
    )
    class_weights: ClassWeights = Field(
        default="none",
        description="Weight per class: none; balanced is inverse to the class count; effective-number after Cui et al. "
        "(2019); or a mapping of class names to weights, 1 for a class that is left out.",
    )
    effective_beta: float = Field(
        default=0.999, gt=0.0, lt=1.0, description="Beta of effective-number; the nearer to 1, the nearer to balanced."
    )

    def of_task(self, task: TaskName) -> "Loss":
        """Return the loss that is meant for this kind of labels: itself, unless it stands for others."""
        return self

    def loss(self, logits: "Tensor", targets: "Tensor", weights: "Tensor | None") -> "Tensor":
        """Return the mean loss of a batch, a scalar.

        Args:
            logits: (N, K) float32; of masks (N, K, H, W).
            targets: (N, K) shares of the classes, smoothed and mixed; per label 0 to 1 where an image may have several.
                Of masks (N, K, H, W) likewise, 0 for a pixel that does not count.
            weights: (K,) weight per class, or None.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.loss")


class Mixing(Component):
    """Mixed training pairs.

    A kind has `mix`.
    """

    family: ClassVar[Family] = Family("model.mixup", "mixup", "visionforge.training.mixing", "a mixer")
    required: ClassVar[tuple[str, ...]] = ("mix",)
    shares_draws: ClassVar[bool] = False  # whether all processes are given the same randomness, and share the draw

    mixup_epochs: int | None = Field(
        default=None,
        ge=0,
        description="Mix in this many first epochs; null mixes in all.",
        json_schema_extra={"unit": "epochs"},
    )

    def mixes(self, epoch: int) -> bool:
        """Return whether the images of an epoch (from 0) are mixed."""
        return self.mixup_epochs is None or epoch < self.mixup_epochs

    def mix(self, images: "Tensor", targets: "Tensor", rng: "np.random.Generator") -> "tuple[Tensor, Tensor]":
        """Return mixed images and their targets, on the device of the images.

        Args:
            images: (N, C, H, W) or (N, C, D, H, W) float32, normalised.
            targets: (N, K) float32 shares of the classes; per label 0 to 1 where an image may have several. Of masks
                (N, K, H, W).
            rng: All randomness; a function of seed, epoch, step and rank, and of the first three where the kind
                `shares_draws`.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.mix")


class Distillation(Section):
    """Learning from what a trained network, the teacher, says of the same images (Hinton et al., 2015)."""

    teacher: str | None = Field(
        default=None,
        description="Trained network whose probabilities are learnt: the folder of a run, such as an ensemble, or its "
        "name in the outputs folder, or a checkpoint; null is off.",
    )
    weight: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="Share of the teacher's probabilities in the target; the rest are the labels.",
    )
    temperature: float = Field(
        default=1.0,
        ge=0.1,
        le=20.0,
        description="Divides the teacher's logits: above 1 its probabilities are less sure. Those of the network that "
        "learns are not divided.",
    )


class Averaging(Component):
    """Averages of the weights over the training, which are then what is validated, tested and saved.

    A kind has `build`, or is the absence of averaging.
    """

    family: ClassVar[Family] = Family("model.averaging", "none", "visionforge.training.averaging", "an average")
    required: ClassVar[tuple[str, ...]] = ("build",)

    def build(self) -> "Callback | None":
        """Return the callback that averages, or None."""
        raise NotImplementedError(f"{type(self).__qualname__}.build")


TtaMode = Literal["full", "light", "off"]
WarmStart = Literal["none", "linear_probe"]


class ModelSettings(Section):
    """The network, how it is trained, and how it predicts."""

    backbone: Backbone = Field(default=Backbone(), description="The network and its first weights.")
    decoder: Decoder = Field(
        default_factory=Decoder.usual, description="The decoder of tasks with masks; others have none."
    )
    detector: Detector = Field(
        default_factory=Detector.usual, description="The detector of tasks with boxes; others have none."
    )
    finetuning: Finetuning = Field(default=Finetuning(), description="Freezing and staged unfreezing of the backbone.")
    warm_start: WarmStart = Field(
        default="none",
        description="What the classifier begins with: random weights, or linear_probe, a logistic regression of the "
        "features that the pretrained backbone gives of the training images (Kumar et al., 2022).",
    )
    optimizer: Optimizer = Field(default_factory=Optimizer.usual, description="The optimiser.")
    schedule: Schedule = Field(default_factory=Schedule.usual, description="The learning-rate schedule.")
    loss: Loss = Field(default_factory=Loss.usual, description="The loss.")
    mixup: Mixing = Field(default_factory=Mixing.usual, description="Mixing of training pairs.")
    averaging: Averaging = Field(default_factory=Averaging.usual, description="Averaging of the weights.")
    distillation: Distillation = Field(default=Distillation(), description="Learning from a trained network.")
    compile: bool = Field(
        default=False,
        description="Compile the network while it is trained (torch.compile): the first steps take up to minutes. For "
        "GPUs; on CPUs the small networks are no faster.",
    )
    cuda_graphs: bool = Field(
        default=False,
        description="Replay the training passes of the network as CUDA graphs, which spares a small network the time "
        "in which its kernels are started one by one. For one NVIDIA GPU; not for detectors.",
    )
    tta: TtaMode = Field(
        default="full",
        description="Test-time augmentation, the mean probabilities of several views: full; light, flips only; or off. "
        "true is full, false is off.",
    )
    tta_weight: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Weight of the image itself among its views; null gives every view the same.",
    )
    monitor: str | None = Field(
        default=None,
        description="What the best epoch is chosen by: val/loss, or val/NAME of any metric that fits the task; null is "
        "what the task goes by, val/auc of classes, val/mean_dice of masks and val/map of boxes, or val/loss where "
        "that is undefined.",
    )

    @field_validator("tta", mode="before")
    @classmethod
    def _tta_as_switch(cls, value: Any) -> Any:
        return {True: "full", False: "off"}[value] if isinstance(value, bool) else value
