"""Settings of an evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from visionforge.config.schema.base import Section

Conformal = Literal["auto", "none", "split", "class", "aps", "raps"]
Outlying = Literal["auto", "none", "energy", "max_logit", "mahalanobis", "knn"]
EmbeddingMethod = Literal["auto", "none", "pca", "umap"]
Name = Annotated[str, Field(min_length=1, max_length=60)]


class EvaluationSettings(Section):
    """What is reported of a trained network; nothing here changes it."""

    resamples: int = Field(
        default=2000,
        ge=0,
        le=100_000,
        description="Bootstrap resamples from which intervals are computed; 0 gives none.",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1.0, description="Share of the resamples that an interval holds."
    )
    report: bool = Field(default=True, description="Write report.html and reports/training_summary.xlsx.")
    figures: bool = Field(default=True, description="Write the pictures in figures/.")
    figure_dpi: int = Field(
        default=150,
        ge=50,
        le=1200,
        description="Resolution of the pictures in figures/; papers want 300.",
        json_schema_extra={"unit": "dots per inch"},
    )
    subgroups: tuple[Name, ...] | None = Field(
        default=None,
        max_length=32,
        description="Columns kept with the data, such as age and sex, or group, by which results are told apart; "
        "null takes all kept ones, [] none. Numbers of more than 12 different values are cut into quartiles.",
    )
    explanations: int = Field(
        default=8,
        ge=0,
        le=64,
        description="Images of the report beside which it shows where the network looked; 0 shows none.",
    )
    embedding: EmbeddingMethod = Field(
        default="auto",
        description="How the features of the evaluated images, which the last layer is given, become a map: by their "
        "principal components (`pca`), or by UMAP (`umap`, the package umap-learn), which takes some ten seconds more. "
        "`auto` is `umap` where it is installed, else `pca`.",
    )
    conformal: Conformal = Field(
        default="auto",
        description="How the set of classes of an image is made, which holds the true one of `coverage` of the images: "
        "by a threshold of the probability (`split`), by one for every class (`class`), by the sum of the larger "
        "probabilities (`aps`), or by that with a price for long sets (`raps`). `auto` is `aps` where an image has "
        "one class, else `none`.",
    )
    coverage: float = Field(
        default=0.9, ge=0.5, le=0.999, description="Least share of the images whose set holds the true class."
    )
    abstain_below: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Probability of the predicted class below which the network abstains; null lets it abstain where "
        "the set holds anything but the predicted class alone.",
    )
    ood: Outlying = Field(
        default="auto",
        description="How far an image is from those of the training: by its logits (`energy`, `max_logit`), or by the "
        "features in front of the last layer (`mahalanobis`, `knn`). `auto` is `mahalanobis` where an image has one "
        "class, else `none`.",
    )
