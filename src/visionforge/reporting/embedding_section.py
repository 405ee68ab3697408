"""The map of features in a report, and beside the surest mistakes the images that the network takes for like them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from visionforge.evaluation.embedding_map import MOST_IMAGES, Embedded, nearest, project
from visionforge.evaluation.evaluation import Array, Evaluation
from visionforge.evaluation.selection import confidence_of
from visionforge.evaluation.slices import as_picture
from visionforge.printable import printable
from visionforge.reporting.figures.embedding import MapPoints, map_figure, map_plot
from visionforge.reporting.figures.panels import panel_grid
from visionforge.reporting.figures.static import Picture, label_names
from visionforge.reporting.presentation import Section
from visionforge.reporting.thumbnails import Panel, data_uri

MISTAKES, NEIGHBOURS = 8, 5
_LABEL, _SHORT = 40, 18  # characters of a label in a sentence, and below a picture
SEVERAL, NONE = "several", "none"  # groups of images that have not one label


@dataclass(frozen=True)
class Neighbour:
    """An image that a network takes for like another.

    Attributes:
        image: (C, H, W) uint8, or a volume.
        label: Its true class, or labels.
        cosine: Of the angle between the features of both.
    """

    image: Array
    label: Any
    cosine: float


@dataclass(frozen=True, eq=False)
class EmbeddingView:
    """What a report shows of features.

    Args:
        embedded: The features.
        points: Of the map.
        strips: The surest mistakes, and their neighbours.
        classes: Names of the classes.
    """

    embedded: Embedded
    points: MapPoints
    strips: Sequence[tuple[Picture, Sequence[Neighbour]]]
    classes: Sequence[str]

    def section(self) -> Section:
        """Return the section of the report."""
        panels = [self._panel(picture, neighbours) for picture, neighbours in self.strips]
        notes = [f"{self._images} {self.points.projection.told}"]
        if panels:
            notes.append(
                f"Below: the most confident mistakes, and beside each the {NEIGHBOURS} {self._among} whose features "
                "have the smallest angle to its own, with their true labels. Where these have the label that was "
                "predicted, the image looks like that to the network; its own label may be worth a look."
            )
        heading = "What the network takes for alike"
        return Section("embedding", heading, notes=notes, plots=[map_plot(self.points)], beside=False, panels=panels)

    def figures(self, title: str) -> dict[str, Figure]:
        """Return the map, and the mistakes with their neighbours, by file name."""
        figures = {"embedding": map_figure(self.points, title)}
        if self.strips:
            rows = [[_rgb(picture.image), *(_rgb(each.image) for each in near)] for picture, near in self.strips]
            captions = [f"№ {picture.index}: {self._told(picture, near)}" for picture, near in self.strips]
            headings = ["mistake", *(str(place + 1) for place in range(len(rows[0]) - 1))]
            told = f"Most confident mistakes, and the nearest {self._among}"
            figures["neighbours"] = panel_grid(rows, headings, captions, told, verdicts=())
        return figures

    @property
    def _images(self) -> str:
        count, of = len(self.points.groups), self.embedded.of
        if count == of:
            return f"Features of the {of:,} images, which the last layer is given."
        return (
            f"Features, which the last layer is given, of {count:,} of the {of:,} images, drawn at random: more than "
            f"{MOST_IMAGES:,} are not drawn."
        )

    @property
    def _among(self) -> str:
        reference = self.embedded.reference
        if reference.split != self.embedded.evaluated.split:
            return f"of {len(reference.positions):,} training images"
        return f"of {len(reference.positions):,} images of the {reference.split} split"

    def _panel(self, picture: Picture, neighbours: Sequence[Neighbour]) -> Panel:
        drawings = [("mistake", data_uri(as_picture(picture.image)))]
        drawings += [
            (label_names(each.label, self.classes, _SHORT), data_uri(as_picture(each.image))) for each in neighbours
        ]
        name = None if picture.name is None else printable(picture.name)
        return Panel(picture.index, drawings, self._told(picture, ()), name, picture.short_name if name else "")

    def _told(self, picture: Picture, neighbours: Sequence[Neighbour]) -> str:
        said, true = (label_names(each, self.classes, _LABEL) for each in (picture.predicted, picture.truth))
        told = f"✗ {said} {picture.confidence:.0%}, true: {true}"
        if neighbours:
            told += f"; neighbours: {', '.join(label_names(each.label, self.classes, _SHORT) for each in neighbours)}"
        return told


def embedding_view(embedded: Embedded, evaluation: Evaluation, mistakes: Sequence[Picture]) -> EmbeddingView:
    """Return the map, and the neighbours of the surest mistakes.

    Args:
        embedded: The features.
        evaluation: The numbers.
        mistakes: The most confident wrong predictions.
    """
    classes, positions = evaluation.spec.classes, embedded.evaluated.positions
    labels, predicted = evaluation.labels[positions], evaluation.predicted[positions]
    wrong = labels != predicted
    sure = confidence_of(evaluation)[positions]
    texts = [
        f"№ {position}: {label_names(said, classes, _LABEL)} {share:.0%}, true: {label_names(true, classes, _LABEL)}"
        for position, said, share, true in zip(positions.tolist(), predicted, sure, labels, strict=True)
    ]
    groups, names = _groups(labels, classes)
    points = MapPoints(
        project(embedded.evaluated.values, embedded.method),
        groups,
        [printable(name) for name in names],
        wrong if wrong.ndim == 1 else wrong.any(axis=1),
        [printable(text) for text in texts],
    )
    return EmbeddingView(embedded, points, _strips(embedded, mistakes[:MISTAKES]), classes)


def _groups(labels: Array, classes: Sequence[str]) -> tuple[Array, list[str]]:
    """Return the group of each image by its label, and their names; of several labels, images with one have that."""
    if labels.ndim == 1:
        return labels.astype(np.int64), list(classes)
    count = labels.sum(axis=1)
    groups = np.where(count == 1, labels.argmax(axis=1), np.where(count == 0, len(classes), len(classes) + 1))
    return groups.astype(np.int64), [*classes, NONE, SEVERAL]


def _strips(embedded: Embedded, mistakes: Sequence[Picture]) -> list[tuple[Picture, list[Neighbour]]]:
    reference = embedded.reference
    if not mistakes:
        return []
    own = np.full(len(mistakes), -1)
    if reference.split == embedded.evaluated.split:
        places = {int(position): place for place, position in enumerate(reference.positions)}
        own = np.array([places.get(picture.index, -1) for picture in mistakes])
    features = embedded.embed(np.stack([picture.image for picture in mistakes]))
    order, cosines = nearest(features, reference.values, NEIGHBOURS, own)
    if not order.shape[1]:
        return []
    wanted = reference.positions[order]
    images, labels = reference.images.__getitems__(wanted.ravel().tolist())
    pixels = images.cpu().numpy().reshape(*order.shape, *images.shape[1:])
    true = labels.cpu().numpy().reshape(*order.shape, *labels.shape[1:])
    return [
        (picture, [Neighbour(*each) for each in zip(pixels[row], true[row], cosines[row].tolist(), strict=True)])
        for row, picture in enumerate(mistakes)
    ]


def _rgb(image: Array) -> Array:
    """Return an image, or a volume as three slices, as (P, Q, 3) uint8."""
    pixels = as_picture(image)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
