"""The search space: presets, the user's changes to them, and no parameter that cannot take effect."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from pydantic import ValidationError

from visionforge.config.problems import flatten, unknown_setting, value_at
from visionforge.config.resizing import network_resolution
from visionforge.config.schema import Dimension, RunSettings, Scalar
from visionforge.config.schema.components import listed
from visionforge.config.schema.tasks import task_named
from visionforge.data.info import DomainFlags
from visionforge.data.registry import dataset_info
from visionforge.errors import SettingsError
from visionforge.runs.config_hash import NEUTRAL, VOLATILE
from visionforge.tuning.conditions import Condition, conditions_of, kind_that_reads, without_other_kinds
from visionforge.tuning.ranges import shape_problem

Values = dict[str, Any]
Check = Callable[[Mapping[str, Any]], list[str]]  # nested settings → a line for every problem

PROBES = 64  # random points at which the rules are checked before the first trial
SMALL_IMAGE = 64  # pixels; up to here the larger batches fit everywhere
_BATCH, _TOGETHER = "data.batch_size", "data.global_batch_size"
_BATCHES = {True: (16, 32, 48, 64), False: (8, 12, 16)}
_OF_WEIGHING_LOSSES = ("model.loss.label_smoothing", "model.loss.class_weights", "model.loss.effective_beta")
_DROPOUT = "model.backbone.dropout"  # some tasks have another
QUICK = {
    "model.optimizer.learning_rate": Dimension(low=1e-4, high=1e-1, log=True),
    "model.optimizer.weight_decay": Dimension(low=1e-6, high=1e-2, log=True),
    _BATCH: Dimension(choices=_BATCHES[True]),
    _DROPOUT: Dimension(low=0.0, high=0.5),
}
FULL = {
    **QUICK,
    "model.optimizer.momentum": Dimension(low=0.8, high=0.99),
    "model.schedule.min_lr": Dimension(low=1e-8, high=1e-5, log=True),
    "model.mixup.alpha": Dimension(low=0.0, high=0.4),
    "model.loss.label_smoothing": Dimension(low=0.0, high=0.2),
    "model.schedule.cosine_fraction": Dimension(low=0.5, high=1.0),
    "model.schedule.scheduler_patience": Dimension(low=1, high=10),
    "data.augmentation.rotation_angle": Dimension(low=0, high=30),
    "data.augmentation.jitter_val": Dimension(low=0.0, high=0.4),
    "data.augmentation.min_scale": Dimension(low=0.7, high=1.0),
}

# Settings that no search may change, and why
FIXED = {
    "data.dataset": "values on other images do not compare",
    "data.synthetic": "values on other images do not compare",
    "data.folds": "values on other images do not compare",
    "data.fold": "values on other images do not compare",
    "data.fold_pool": "values on other images do not compare",
    "data.fold_repeats": "values on other images do not compare",
    "data.fold_seed": "values on other images do not compare",
    "model.tta": "the validation does not use it",
    "model.tta_weight": "the validation does not use it",
    "trainer.max_epochs": "tune.epochs sets it for all trials",
    "ckpt_path": "a trial begins anew",
    **VOLATILE,
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of the search.

    Attributes:
        path: Dotted setting.
        dimension: Its range or choices.
        integer: Whether a range holds whole numbers.
        conditions: All of them have to hold, otherwise the parameter is not proposed.
    """

    path: str
    dimension: Dimension
    integer: bool
    conditions: tuple[Condition, ...] = ()

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        """Return a value for a trial."""
        dimension = self.dimension
        if dimension.choices is not None:
            return trial.suggest_categorical(self.path, list(dimension.choices))
        assert dimension.low is not None
        assert dimension.high is not None
        if self.integer:
            step = 1 if dimension.step is None else int(dimension.step)
            return trial.suggest_int(self.path, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
        return trial.suggest_float(self.path, dimension.low, dimension.high, step=dimension.step, log=dimension.log)

    def holds(self, value: Any) -> bool:
        """Return whether a value can be proposed."""
        dimension = self.dimension
        if dimension.choices is not None:
            return value in dimension.choices
        assert dimension.low is not None
        assert dimension.high is not None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        steps = 0.0 if dimension.step is None else (value - dimension.low) / dimension.step
        return dimension.low <= value <= dimension.high and abs(steps - round(steps)) < 1e-9

    def grid(self) -> list[Any] | None:
        """Return all values, or None if there is no end of them."""
        dimension = self.dimension
        if dimension.choices is not None:
            return list(dimension.choices)
        assert dimension.low is not None
        assert dimension.high is not None
        step = dimension.step or (1.0 if self.integer else None)
        if step is None or dimension.log:
            return None
        count = int((dimension.high - dimension.low) / step + 1e-9) + 1
        values = [dimension.low + step * index for index in range(count)]
        return [int(value) for value in values] if self.integer else values

    def ends(self) -> dict[str, Any]:
        """Return the values that stand for all of them in checks, by name."""
        dimension = self.dimension
        if dimension.choices is not None:
            return {f"choice {value!r}": value for value in dimension.choices}
        kind = int if self.integer else float
        assert dimension.low is not None
        assert dimension.high is not None
        return {f"low {dimension.low:g}": kind(dimension.low), f"high {dimension.high:g}": kind(dimension.high)}


@dataclass(frozen=True)
class Space:
    """The parameters of a search around a configuration.

    Attributes:
        parameters: The parameters; one that decides on another comes before it.
        base: The configuration, nested.
        left_out: A line for every parameter of the preset that cannot take effect.
    """

    parameters: tuple[Parameter, ...]
    base: dict[str, Any]
    left_out: tuple[str, ...] = ()

    def suggest(self, trial: optuna.trial.BaseTrial) -> Values:
        """Return a value for every parameter that takes effect together with the others."""
        values: Values = {}
        for parameter in self.parameters:
            if self._takes_effect(parameter, values):
                values[parameter.path] = parameter.suggest(trial)
        return values

    def suggest_base(self, trial: optuna.trial.BaseTrial) -> Values:
        """Let a trial have the configuration's own values; those outside their range are no parameters of it."""
        inside = self.of_base()
        for parameter in self.parameters:
            if parameter.path in inside:
                parameter.suggest(trial)
        return {}

    def _takes_effect(self, parameter: Parameter, values: Mapping[str, Any]) -> bool:
        return all(c.allows(values.get(c.decider, value_at(self.base, c.decider))) for c in parameter.conditions)

    def of_base(self) -> Values:
        """Return the configuration's own values, as far as they lie in their ranges."""
        found = {p.path: self._own(p.path) for p in self.parameters if self._takes_effect(p, {})}
        by_path = {parameter.path: parameter for parameter in self.parameters}
        return {path: value for path, value in found.items() if by_path[path].holds(value)}

    def inside(self, values: Mapping[str, Any]) -> Values:
        """Return those of some values that the space can propose together."""
        found: Values = {}
        for parameter in self.parameters:
            path = parameter.path
            if path in values and self._takes_effect(parameter, found) and parameter.holds(values[path]):
                found[path] = values[path]
        return found

    def _own(self, path: str) -> Any:
        """Return the configuration's own value; of a Trainer flag that is not set, what Lightning takes."""
        value = value_at(self.base, path)
        return NEUTRAL.get(path) if value is None else value

    def apply(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration with values in place; another kind of component leaves out what it does not have."""
        return with_values(without_other_kinds(self.base, values), values)

    def described(self) -> dict[str, Any]:
        """Return the parameters as plain values, by which a study recognises its space."""
        return {p.path: p.dimension.model_dump(mode="json", exclude_defaults=True) for p in self.parameters}


def with_values(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a nested mapping with values at dotted paths."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    for path, value in values.items():
        head, _, rest = path.partition(".")
        if rest:
            inner = result.get(head)
            result[head] = with_values(inner if isinstance(inner, Mapping) else {}, {rest: value})
        else:
            result[head] = value
    return result


# --- building


def build_space(settings: RunSettings, flags: DomainFlags, backbones: Sequence[str], check: Check) -> Space:
    """Return the space that the settings ask for, checked against the settings' own bounds and rules.

    Args:
        settings: The settings; `tune` says what is searched.
        flags: What the data set allows.
        backbones: Built-in backbones that fit the images, the pool of `architectures`.
        check: Checks nested settings.

    Raises:
        SettingsError: With a line for every parameter that does not exist, has values that are not allowed, or cannot
            take effect.
    """
    tune = settings.tune
    base = settings.model_dump(mode="json", exclude={"probe", "tune"})
    preset = _preset(settings, backbones)
    given = tune.space
    dimensions = {path: value for path, value in {**preset, **given}.items() if value is not None}
    known = flatten(RunSettings)
    fixed = [*_fixed(given)]
    problems = [*_unknown({path: value for path, value in given.items() if not _reasons(path)}), *fixed]
    problems += [
        f"tune.space.{path}: null takes out a parameter of the preset {tune.preset!r}, which has no such parameter; "
        f"it has: {', '.join(preset) or 'none'}"
        for path, value in given.items()
        if value is None and path not in preset and path in known
    ]
    if problems:
        raise SettingsError(problems)
    parameters = {path: _parameter(path, dimension) for path, dimension in dimensions.items()}
    left_out = []
    for path in list(parameters):
        reason = _dead(parameters[path], parameters, base, flags)
        if reason is None:
            continue
        line = f"tune.space.{path}: cannot take effect, because {reason}"
        if path in given:
            problems.append(f"{line}; leave it out, or change that")
        else:
            left_out.append(line)
        del parameters[path]
    if not parameters and not problems:
        problems.append("tune.space: there is nothing to search; name parameters, or choose a preset")
    if problems:
        raise SettingsError(problems)
    space = Space(_ordered(parameters), base, tuple(left_out))
    problems = _check_values(space, check)
    if problems:
        raise SettingsError(problems)
    return space


def _preset(settings: RunSettings, backbones: Sequence[str]) -> dict[str, Dimension]:
    small = network_resolution(settings.data.resize, settings.data.resolution) <= SMALL_IMAGE
    path = _BATCH if settings.data.global_batch_size is None else _TOGETHER
    batches = {path: Dimension(choices=_BATCHES[small])}
    match settings.tune.preset:
        case "none":
            return {}
        case "full":
            return {**_of_task(FULL, settings), **batches}
        case "architectures":
            pool = settings.tune.pool or tuple(backbones)
            return {"model.backbone.name": Dimension(choices=pool), **_of_task(QUICK, settings), **batches}
    return {**_of_task(QUICK, settings), **batches}


def _of_task(preset: Mapping[str, Dimension], settings: RunSettings) -> dict[str, Dimension]:
    """Return a preset with the dropout that networks of the task have, if any, and without what its loss has not."""
    kind = task_named(dataset_info(settings.data.dataset, settings.data.synthetic).task)
    weighs = settings.model.loss.of_task(kind.name).weighs
    renamed = {
        kind.dropout if path == _DROPOUT else path: dimension
        for path, dimension in preset.items()
        if weighs or path not in _OF_WEIGHING_LOSSES
    }
    together = settings.data.global_batch_size is not None  # then that is searched, and there is no other
    return {
        _TOGETHER if path == _BATCH and together else path: dimension
        for path, dimension in renamed.items()
        if path is not None
    }


def _unknown(given: Mapping[str, Dimension | None]) -> Iterable[str]:
    known = flatten(RunSettings)
    for path in given:
        section = known.get(path)
        if path not in known and not (path.startswith("trainer.") and path.count(".") == 1):
            yield unknown_setting(path, known).replace(f"{path}: ", f"tune.space.{path}: ", 1)
        elif section is not None and hasattr(section.annotation, "model_fields"):
            yield f"tune.space.{path}: is a section; name one of its settings"


def _fixed(given: Mapping[str, Dimension | None]) -> Iterable[str]:
    for path in given:
        for reason in _reasons(path):
            yield f"tune.space.{path}: cannot be searched ({reason})"


def _reasons(path: str) -> list[str]:
    """Return why a setting cannot be searched; nothing if it can."""
    lists = {name: "a list of components" for name, field in flatten(RunSettings).items() if listed(field.annotation)}
    whole = path.partition("[")[0]
    return [reason for name, reason in {**FIXED, **lists}.items() if f"{whole}.".startswith(f"{name}.")]


def _parameter(path: str, dimension: Dimension) -> Parameter:
    field = flatten(RunSettings).get(path)
    if field is None:
        neutral = NEUTRAL.get(path)
        integer = isinstance(neutral, int) and not isinstance(neutral, bool)
    else:
        integer = field.annotation in (int, int | None)
    if dimension.choices is not None:
        choices = tuple(_as_declared(path, value) for value in dimension.choices)
        dimension = dimension.model_copy(update={"choices": choices})
    return Parameter(path, dimension, integer, conditions_of(path))


def _as_declared(path: str, value: Scalar) -> Scalar:
    """Return a choice as its setting reads it: 1e-3, which is text in YAML, as a number, and 1 of a switch as true."""
    if path in flatten(RunSettings):
        try:
            read = RunSettings.model_validate(with_values({}, {**kind_that_reads(path), path: value}))
        except ValidationError:  # told with all others that are not allowed
            return value
        found: Scalar = value_at(read.model_dump(mode="json"), path)
        return found
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _dead(
    parameter: Parameter, parameters: Mapping[str, Parameter], base: Mapping[str, Any], flags: DomainFlags
) -> str | None:
    """Return why a parameter cannot take effect in this configuration, or None."""
    if parameter.path == "data.augmentation.hflip" and not flags.hflip:
        return "left and right of these images are not interchangeable"
    if parameter.path in ("data.augmentation.rotation_angle", "data.augmentation.num_ops") and flags.rotation == "none":
        return "these images may not be turned"
    for condition in parameter.conditions:
        decider = parameters.get(condition.decider)
        if decider is None:
            possible = [value_at(base, condition.decider)]
        else:
            ends = list(decider.ends().values())
            inside = [] if decider.dimension.choices is not None else [sum(ends) / 2]
            possible = [*ends, *inside]
        if not any(condition.allows(value) for value in possible):
            return f"it is read where {condition.text}, and that is {', '.join(map(str, possible))}"
    return None


def _ordered(parameters: Mapping[str, Parameter]) -> tuple[Parameter, ...]:
    """Return the parameters in an order in which each comes after those that decide on it."""
    ordered: dict[str, Parameter] = {}
    waiting = dict(parameters)
    while waiting:
        ready = [
            path for path, p in waiting.items() if not any(c.decider in waiting for c in p.conditions)
        ]  # conditions do not form circles
        for path in ready:
            ordered[path] = waiting.pop(path)
    return tuple(ordered.values())


def _check_values(space: Space, check: Check) -> list[str]:
    """Return a line for every value that is not allowed, alone or together with others."""
    problems: list[str] = []
    for parameter in space.parameters:
        if wrong := shape_problem(parameter.dimension, parameter.integer):
            problems.append(f"tune.space.{parameter.path}: {wrong}")
            continue
        for name, value in parameter.ends().items():
            found = check(space.apply({**_enabling(space, parameter), parameter.path: value}))
            own = [line for line in found if line.startswith(f"{parameter.path}: ")]
            if own:
                problems.append(f"tune.space.{parameter.path}: {name}: {own[0].partition(': ')[2]}")
    if problems:
        return problems
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(PROBES):
        values = space.suggest(study.ask())
        if found := check(space.apply(values)):
            shown = ", ".join(f"{path} {value}" for path, value in values.items())
            return [f"tune.space: {found[0]}; so narrow the ranges, or take one out (at {shown})"]
    return []


def _enabling(space: Space, parameter: Parameter) -> Values:
    """Return values of other parameters under which a parameter takes effect."""
    values: Values = {}
    by_path = {p.path: p for p in space.parameters}
    for condition in parameter.conditions:
        decider = by_path.get(condition.decider)
        if decider is not None:
            allowed = [value for value in decider.ends().values() if condition.allows(value)]
            values |= _enabling(space, decider)
            if allowed:
                values[condition.decider] = allowed[0]
    return values
