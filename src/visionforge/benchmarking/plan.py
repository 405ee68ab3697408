"""The cells of a benchmark: data set × resolution × backbone × recipe × seed, each with the settings of its run."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

from visionforge.config.loading import RawConfig, read_values, read_yaml
from visionforge.config.problems import value_at
from visionforge.config.resizing import network_resolution
from visionforge.config.schema import Backbone, BenchmarkSettings, RunSettings
from visionforge.config.schema.benchmark import BY_SIZE, DEFAULT_RECIPE
from visionforge.config.schema.model import AUTO
from visionforge.config.shipped import described, recipe_for, require_config
from visionforge.data.registry import dataset_info
from visionforge.data.source import prepare
from visionforge.engine.probe import PROBES
from visionforge.engine.several_fits import FITS, for_each
from visionforge.engine.validation import training_images
from visionforge.errors import DataError, SettingsError, VisionForgeError
from visionforge.models.first_weights import expected_pretrained
from visionforge.models.registry import backbone_entry
from visionforge.runs.config_hash import digest
from visionforge.runs.session import PROBE

STAGES = {"fit": FITS, "probe": PROBES}  # what a recipe may ask for
SEEDS = 3
RESOLUTION, BACKBONE = "data.resolution", "model.backbone.name"
PRETRAINED = "model.backbone.pretrained"
MOST_CELLS = 100_000
_OF_THE_WHOLE = ("benchmark", "tune", "resume", "stage")  # sections that are no part of a cell


@dataclass(frozen=True)
class Recipe:
    """A partial configuration.

    Attributes:
        name: What the leaderboard calls it.
        tree: The settings.
        source: Where they were written.
        stage: How a cell is worked on: `fit` or `probe`.
        by_size: It stands for the shipped recipe for the size of a data set.
    """

    name: str
    tree: Mapping[str, Any]
    source: str = ""
    stage: str = "fit"
    by_size: bool = False

    def of(self, images: int) -> "Recipe":
        """Return the recipe of a data set with so many training images, under the same name."""
        return replace(read_recipe(recipe_for(images)), name=self.name) if self.by_size else self


@dataclass(frozen=True)
class Cell:
    """One training of the matrix.

    Attributes:
        dataset: Data set.
        resolution: Height and width in pixels.
        backbone: Backbone.
        recipe: Name of the recipe.
        seed: Seed.
        settings: Of its fit or probe; None if it cannot work.
        problem: Why it cannot, in a line.
        stage: How it is worked on.
    """

    dataset: str
    resolution: int
    backbone: str
    recipe: str
    seed: int
    settings: RunSettings | None = None
    problem: str | None = None
    stage: str = "fit"

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.dataset} {self.resolution} {self.backbone} {self.recipe} seed {self.seed}"

    def as_dict(self) -> dict[str, str | int]:
        """Return what it is, as plain values."""
        names = ("dataset", "resolution", "backbone", "recipe", "seed")
        return {name: getattr(self, name) for name in names}

    @property
    def place(self) -> str:
        """What it reads."""
        return f"{self.dataset} {self.resolution}"

    @cached_property
    def key(self) -> str:
        """What the study knows it by: its name, and a digest of its settings."""
        found = digest(self.settings.model_dump(mode="json")) if self.settings is not None else "-"
        return f"{self.name} {self.stage} {found}"


def plan(settings: RunSettings) -> list[Cell]:
    """Return all cells, with a problem where one cannot work; nothing is downloaded.

    Raises:
        SettingsError: If a name is unknown, a recipe cannot be read, or no cell at all can work.
    """
    chosen = settings.benchmark
    _require_names(chosen)
    recipes = _named_apart([read_recipe(text) for text in chosen.recipes], chosen.recipes)
    base = read_values(settings, {})
    for section in _OF_THE_WHOLE:
        base.values.pop(section, None)
    of_all = {RESOLUTION: settings.data.resolution, BACKBONE: settings.model.backbone.name}
    for setting, default in of_all.items():  # under the recipes, which may say otherwise
        base.set(setting, default, "by default")
    if settings.ckpt_path is not None:
        raise SettingsError("ckpt_path: the cells of a benchmark begin anew or go on by themselves; leave it out")
    first = settings.seed_everything
    axes: tuple[Sequence[Any], ...] = (
        chosen.datasets or (settings.data.dataset,),
        chosen.resolutions or (None,),
        chosen.backbones or (None,),
        recipes,
        chosen.seeds or range(first, first + SEEDS),
    )
    if (count := math.prod(map(len, axes))) > MOST_CELLS:
        raise SettingsError(f"benchmark: {count:,} cells are not allowed; allowed: at most {MOST_CELLS:,}")
    datasets, resolutions, backbones, _, seeds = axes
    cells: list[Cell] = []
    for dataset in datasets:
        images = dataset_info(dataset, settings.data.synthetic).splits.train
        own = [recipe.of(images) for recipe in recipes]
        cells += [_cell(base, dataset, *point) for point in product(resolutions, backbones, own, seeds)]
    return cells


def _require_names(chosen: BenchmarkSettings) -> None:
    problems: list[str] = []
    for name in chosen.datasets:
        problems += _asked(dataset_info, name, "data.dataset", "benchmark.datasets")
    for name in chosen.backbones:
        problems += _asked(backbone_entry, name, "model.backbone.name", "benchmark.backbones")
    if problems:
        raise SettingsError(problems)


def _asked(look_up: Any, name: str, setting: str, here: str) -> list[str]:
    try:
        look_up(name)
    except VisionForgeError as error:
        return [problem.replace(setting, here) for problem in error.problems]
    return []


def read_recipe(text: str) -> Recipe:
    """Return the recipe that a text names: a shipped one, a YAML file, `default` or `by_size`.

    Raises:
        SettingsError: If there is none, or it asks for what cannot be done.
    """
    if text in (DEFAULT_RECIPE, BY_SIZE):
        return Recipe(text, {}, by_size=text == BY_SIZE)
    try:
        path = require_config(text)
        tree = read_yaml(path)
    except SettingsError as error:
        raise SettingsError([f"benchmark.recipes: {problem}" for problem in error.problems]) from error
    stage = tree.get("stage", "fit")
    if stage not in STAGES:
        raise SettingsError(f"benchmark.recipes: {text}: stage: {stage!r} is not allowed; allowed: {', '.join(STAGES)}")
    kept = {key: value for key, value in tree.items() if key not in _OF_THE_WHOLE}
    return Recipe(Path(path).stem, kept, f"in {described(path)}", stage)


def _named_apart(recipes: list[Recipe], texts: Sequence[str]) -> list[Recipe]:
    """Return recipes of which no two have the same name: files of one name are called by their paths."""
    names = [recipe.name for recipe in recipes]
    return [
        recipe if names.count(recipe.name) == 1 else replace(recipe, name=re.sub(r"\s+", "_", text))
        for recipe, text in zip(recipes, texts, strict=True)
    ]


def _cell(
    base: RawConfig, dataset: str, resolution: int | None, backbone: str | None, recipe: Recipe, seed: int
) -> Cell:
    raw, where = base.copy(), "by the benchmark"
    raw.merge(recipe.tree, recipe.source)
    given = {
        "data.dataset": dataset,
        RESOLUTION: resolution,
        BACKBONE: backbone,
        "seed_everything": seed,
    }
    for setting, value in given.items():
        if value is not None:  # else it is what recipe and configuration say
            raw.set(setting, value, where)
    side, name = (value_at(raw.values, setting) for setting in (RESOLUTION, BACKBONE))
    if value_at(raw.values, PRETRAINED) in (None, AUTO):  # for all workers and times the same, so no host is asked
        channels = 3 if value_at(raw.values, "data.force_rgb") is not False else dataset_info(dataset).channels
        weights = value_at(raw.values, "model.backbone.weights")
        raw.set(PRETRAINED, expected_pretrained(Backbone(name=name, weights=weights), channels)[0], where)
    cell = Cell(dataset, side, name, recipe.name, seed, stage=recipe.stage)
    try:
        settings = for_each(STAGES[recipe.stage].request_of(raw).settings, "a benchmark")
    except VisionForgeError as error:
        return replace(cell, problem="; ".join(error.problems))
    quiet = "warning" if settings.log_level == "info" else settings.log_level
    return replace(cell, settings=settings.model_copy(update={"log_level": quiet}))


def data_problems(cells: Sequence[Cell]) -> dict[str, str]:
    """Download and verify what the cells read, once each; return place of data that cannot be had → why."""
    problems: dict[str, str] = {}
    seen = set[str]()
    for cell in cells:
        if cell.settings is None or cell.place in seen:
            continue
        seen.add(cell.place)
        data = cell.settings.data
        try:
            prepare(dataset_info(data.dataset, data.synthetic), data.resolution, data.root, data.download)
        except (DataError, SettingsError) as error:
            problems[cell.place] = "; ".join(error.problems)
    return problems


def with_problems(cells: Sequence[Cell], problems: Mapping[str, str]) -> list[Cell]:
    """Return cells of which those whose data cannot be had have a problem.

    Args:
        cells: The cells.
        problems: What `data_problems` returns.
    """
    return [
        replace(cell, settings=None, problem=problems[cell.place])
        if cell.settings is not None and cell.place in problems
        else cell
        for cell in cells
    ]


def in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Return cells in the order of their work: all of the first seed before the second, cheap ones first."""
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    return sorted(cells, key=lambda cell: (seeds.index(cell.seed), cost_of(cell)))


def cost_of(cell: Cell) -> float:
    """Return about how many multiply-adds of a forward pass a cell takes; 0 where nobody knows.

    A probe looks at every image once, a fit in every epoch, and its backward pass takes twice a forward pass.
    """
    settings = cell.settings
    if settings is None:
        return 0.0
    info = dataset_info(settings.data.dataset, settings.data.synthetic)
    images = training_images(settings.data, info.splits.model_dump())
    most = settings.data.max_samples
    images = images if most is None else min(images, most)
    channels = 3 if settings.data.force_rgb else info.channels
    side = network_resolution(settings.data.resize, settings.data.resolution)
    one = network_costs(settings.model.backbone.name, side, channels, info.spatial_dims)
    passes = 1 if cell.stage == PROBE else 3 * settings.trainer.max_epochs
    return float(images) * passes * (one[1] if one else side**info.spatial_dims)


@cache
def network_costs(
    name: str, resolution: int, channels: int, dims: int, classes: int = 10, adapt: bool = True, volumes: str = "3d"
) -> tuple[int, int] | None:
    """Return parameters and multiply-adds per image of a backbone as a classifier; None if it cannot be built.

    Args:
        name: The backbone.
        resolution: Height and width in pixels.
        channels: Channels of the images.
        dims: 2 for images, 3 for volumes.
        classes: Number of logits.
        adapt: Whether small images get the adapted stem.
        volumes: What the kernels of a network for volumes are.
    """
    from visionforge.models.inspect import profile  # seconds

    kind: Any = volumes
    try:
        found = profile(backbone_entry(name), resolution, channels, classes, adapt, dims, kind)
    except VisionForgeError:
        return None
    return found.parameters, found.multiply_adds
