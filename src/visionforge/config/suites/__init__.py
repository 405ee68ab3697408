"""Matrices of a benchmark that ship with the package, a YAML file each; everything that is given wins over them."""

from importlib.resources import files

from visionforge.config.loading import RawConfig, switched
from visionforge.errors import SettingsError
from visionforge.reading import read_yaml_text


def suite_names() -> list[str]:
    """Return the names of the suites."""
    return sorted(file.name.removesuffix(".yaml") for file in files(__name__).iterdir() if file.name.endswith(".yaml"))


def with_suite(raw: RawConfig) -> RawConfig:
    """Return settings with those of the suite that `benchmark.suite` names underneath.

    Raises:
        SettingsError: If there is no such suite.
    """
    section = raw.values.get("benchmark")
    suite = section.get("suite") if isinstance(section, dict) else None
    if suite is None:
        return raw
    if suite not in suite_names():
        raise SettingsError(f"benchmark.suite: {suite} is not allowed; allowed: {', '.join(suite_names())}")
    tree = read_yaml_text(files(__name__).joinpath(f"{suite}.yaml").read_text(encoding="utf-8"))
    return raw.over(tree, f"in the suite {suite}")


def take_benchmark_flags(raw: RawConfig) -> dict[str, bool]:
    """Turn ``--suite`` and ``--workers`` into the settings that they are short for, and take what is no setting out.

    Returns:
        Name of a switch → whether it is set: `list`, `leaderboard_only` and `retry_failed`.

    Raises:
        SettingsError: If a switch is neither true nor false, or a flag and its setting differ.
    """
    for flag in ("suite", "workers"):
        if (given := raw.values.pop(flag, None)) is not None:
            given = int(given) if flag == "workers" and str(given).isdecimal() else given  # a flag is a text
            section = raw.values.get("benchmark")
            told = section.get(flag) if isinstance(section, dict) else None
            if raw.sources.get(f"benchmark.{flag}") == raw.sources.get(flag) and told not in (None, given):
                raise SettingsError(f"benchmark.{flag}: {told} and --{flag} {given} differ; leave one of them out")
            raw.set(f"benchmark.{flag}", given, raw.sources.get(flag, ""))
    names = ("list", "leaderboard_only", "retry_failed")
    return {name: switched(f"--{name}", raw.values.pop(name, None)) for name in names}
