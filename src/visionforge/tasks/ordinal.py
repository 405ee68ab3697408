"""Classes with an order, such as the stages of a disease."""

from typing import ClassVar

from visionforge.config.schema.tasks import register_task
from visionforge.tasks.classes import ClassTask


@register_task
class Ordinal(ClassTask):
    """Grades, lowest first; judged by how far off a prediction is, too."""

    name: ClassVar[str] = "ordinal"
    position: ClassVar[int] = 4
    forms: ClassVar[tuple[str, ...]] = ("classes", "grades")
    drawn: ClassVar[str] = "grade"
    headlines: ClassVar[tuple[str, ...]] = ("auc", "accuracy", "kappa_quadratic", "mae")
