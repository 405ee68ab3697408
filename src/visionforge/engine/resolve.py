"""The configuration that a command would run with, complete and resolved."""

from typing import Any

from visionforge.config.loading import RawConfig
from visionforge.config.problems import value_at
from visionforge.config.schema import RunSettings
from visionforge.config.stored import component_paths
from visionforge.config.suites import take_benchmark_flags, with_suite
from visionforge.engine.evaluate import target_of
from visionforge.engine.first_imports import import_lightning
from visionforge.engine.fit import request_of
from visionforge.engine.folds import FLAG, number_of_folds
from visionforge.engine.frozen import frozen_settings
from visionforge.engine.probe import probe_request
from visionforge.engine.settings_help import OF_ONE_COMMAND
from visionforge.errors import SettingsError
from visionforge.runs.query import flat

WAYS = ("skip_default", "skip_null")


def resolved_config(raw: RawConfig, stage: str, ways: str = "") -> dict[str, Any]:
    """Return the configuration of a fit, an evaluation or a search, as a YAML file would say it.

    Args:
        raw: The settings as they were given.
        stage: The command, such as `fit`, `probe` or `tune`.
        ways: `skip_default` and `skip_null`, with commas between them, leave settings out.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    chosen = [way for way in ways.split(",") if way]
    if unknown := [way for way in chosen if way not in WAYS]:
        raise SettingsError(f"--print_config: {', '.join(unknown)} is not allowed; allowed: {', '.join(WAYS)}")
    training, probing = stage in ("fit", "tune", "benchmark"), stage == "probe"
    raw = raw.copy()
    if stage == "benchmark":
        take_benchmark_flags(raw)
        raw = with_suite(raw)
    folds = _with_a_fold(raw, stage) if training or probing else False
    if training or probing:
        request = probe_request(raw) if probing else request_of(raw)
        settings, sources = request.settings, request.sources
    elif stage == "embed":
        _, settings, sources = frozen_settings(raw, stage)
    else:
        _, settings, sources = target_of(raw, stage)

    import_lightning()
    from visionforge.engine.construction import Construction

    evaluation = not (training or probing)
    config = Construction(settings, evaluation=evaluation, sources=sources, probing=probing).config_tree
    if folds:
        config["data"]["fold"] = None
    if stage == "fit":
        config["resume"] = settings.resume
    if stage == "tune" or "tune" in raw.values:
        config["tune"] = settings.tune.model_dump(mode="json")
    if stage == "benchmark" or "benchmark" in raw.values:
        config["benchmark"] = settings.benchmark.model_dump(mode="json")
    if "skip_null" in chosen:
        config = _without(config, lambda _, value: value is None)
    if "skip_default" in chosen:
        defaults = _usual(config)
        tree = Construction(defaults, evaluation=evaluation, probing=probing).config_tree
        beside = {name: getattr(defaults, name).model_dump(mode="json") for name in OF_ONE_COMMAND}
        usual = dict(flat({**tree, **beside}))
        usual |= {f"{path}.name": base.family.default for path, base in component_paths().items()}
        config = _without(config, lambda path, value: path in usual and usual[path] == value)
    return config


def _with_a_fold(raw: RawConfig, stage: str) -> bool:
    """Leave flags out that say how often is trained; return whether that is once for every fold, of which one is named.

    Raises:
        SettingsError: If there are not so many folds.
    """
    given = {name: raw.values.pop(name, None) for name in ("seeds", "folds", "workers", "distill", "profile")}
    if given["folds"] is not None:
        more = {"tune": {"cross_validate": True}} if stage == "tune" else {}
        raw.merge({"data": {"folds": number_of_folds(given["folds"])}, **more}, f"with {FLAG}")
    every = given["folds"] is not None or (stage == "tune" and bool(value_at(raw.values, "tune.cross_validate")))
    if every and value_at(raw.values, "data.fold") is None:
        raw.merge({"data": {"fold": 0}}, f"with {FLAG}")
    return every


def _usual(config: dict[str, Any]) -> RunSettings:
    """Return the default settings, of those components that a configuration has chosen."""
    raw = RawConfig()
    for path in component_paths():
        value = value_at(config, path)
        if isinstance(value, dict) and "name" in value:
            raw.set(f"{path}.name", value["name"], "")
    return RunSettings.model_validate(raw.values)


def _without(tree: dict[str, Any], drop: Any, prefix: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            if below := _without(value, drop, f"{path}."):
                kept[key] = below
        elif not drop(path, value):
            kept[key] = value
    return kept
