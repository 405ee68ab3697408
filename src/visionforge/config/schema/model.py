"""Settings of the network, how it is trained, and how it predicts."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from visionforge.config.schema.base import Probability, Section


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
