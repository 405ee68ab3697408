"""Settings of a probe: a classifier of features that a network gives as it is."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from visionforge.config.schema.base import Section

ProbeClassifier = Literal["logistic_regression", "knn", "lda", "gradient_boosting"]
Shrinkage = Literal["auto"] | Annotated[float, Field(ge=0.0, le=1.0)]
MOST_CANDIDATES = 50  # of one setting


class ProbeSettings(Section):
    """The classifier of `visionforge probe`; all other commands pass over it.

    Features are those in front of the network's last layer, of images as they are in tests; they are standardised.
    """

    classifier: ProbeClassifier = Field(
        default="logistic_regression",
        description="What scikit-learn fits to the features: logistic_regression, multinomial, of labels one each; "
        "knn, neighbours by cosine whose votes weigh exp(-distance / 0.07); lda, linear discriminants; or "
        "gradient_boosting, trees of histograms.",
    )
    network: str | None = Field(
        default=None,
        description="Trained network whose features are taken: the folder of a run or its name in the outputs folder, "
        "or a checkpoint; null is model.backbone with its pretrained weights. `--run RUN` sets it.",
    )
    c: tuple[Annotated[float, Field(gt=0.0, le=1e6)], ...] = Field(
        default=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0),
        min_length=1,
        max_length=MOST_CANDIDATES,
        description="logistic_regression: candidates for C, the inverse of the L2 regularisation.",
    )
    neighbours: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(1, 3, 5, 10, 20, 50, 100, 200),
        min_length=1,
        max_length=MOST_CANDIDATES,
        description="knn: candidates for the number of neighbours; more than there are training images are all.",
    )
    shrinkage: tuple[Shrinkage, ...] = Field(
        default=(0.9, 0.7, 0.5, 0.3, 0.1, 0.01, "auto"),
        min_length=1,
        max_length=MOST_CANDIDATES,
        description="lda: candidates for the share of the mean variance in the covariance; auto is Ledoit and Wolf's.",
    )
    learning_rate: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = Field(
        default=(0.1,),
        min_length=1,
        max_length=MOST_CANDIDATES,
        description="gradient_boosting: candidates for the share of each tree.",
    )
    leaves: tuple[Annotated[int, Field(ge=2, le=255)], ...] = Field(
        default=(4, 15),
        min_length=1,
        max_length=MOST_CANDIDATES,
        description="gradient_boosting: candidates for the most leaves of a tree.",
    )
    iterations: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(25, 50, 100),
        min_length=1,
        max_length=MOST_CANDIDATES,
        description="gradient_boosting: candidates for the number of trees, of each class or label.",
    )
    class_weights: Literal["auto", "balanced", "none"] = Field(
        default="auto",
        description="balanced counts every class alike, none every image; auto is balanced where data.sampler is.",
    )
    augmented_views: int = Field(
        default=0,
        ge=0,
        le=50,
        description="Augmented copies of every training image that are learnt beside it, drawn as data.augmentation "
        "says.",
    )
    refit: bool = Field(
        default=False,
        description="Fit the chosen candidate once more to train and val together; no split is then left on which a "
        "temperature could be fitted.",
    )

    @field_validator("c", "neighbours", "shrinkage", "learning_rate", "leaves", "iterations")
    @classmethod
    def _differ(cls, value: tuple[float | str, ...]) -> tuple[float | str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("candidates must differ from each other")
        return value
