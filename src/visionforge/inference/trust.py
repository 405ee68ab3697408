"""What is taken from the configuration of a run folder, which may come from a stranger.

An evaluation takes data only. A training that is continued or repeated takes everything from a run that this user has
made on this account, which its signature proves; from any other run, what `config.untrusted` admits, unless the flag
`--trust RUN` allows the rest.
"""

import logging
from typing import Any

from visionforge.config.loading import read_yaml
from visionforge.config.stored import of_known_parts
from visionforge.config.untrusted import for_evaluation, for_training, named_classes
from visionforge.data.download import data_root
from visionforge.data.registry import dataset_info
from visionforge.errors import RunError, SettingsError, VisionForgeError
from visionforge.runs.files import refuse_links
from visionforge.runs.manifest import read_manifest
from visionforge.runs.paths import shown
from visionforge.runs.query import find_run
from visionforge.runs.session import ENSEMBLE, FOREIGN, PROBE
from visionforge.runs.signature import CONFIGURATION, canonical_content, is_signed
from visionforge.runs.workspace import Workspace

log = logging.getLogger(__name__)

FLAG = "--trust"


def evaluation_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return what an evaluation takes from a stored configuration."""
    return _with_reachable_root(for_evaluation(config))


def training_config(run: Workspace, trust: str | None, flag: str) -> dict[str, Any]:
    """Return the configuration by which a run is continued or repeated.

    Args:
        run: The run.
        trust: The run that the user trusts, as given; None if none.
        flag: What named the run, for messages.

    Raises:
        RunError: If the folder holds no configuration, or another run is trusted than is used.
        SettingsError: If it names what is not built from a stranger's folder.
    """
    if not run.config.is_file():
        raise RunError(f"{flag}: {run.path} holds no config.yaml, so it is no run of a fit")
    refuse_links(run.path)
    require_fit(run, flag)
    if _stage(run) == ENSEMBLE:
        raise RunError(
            f"{flag}: {shown(run.path)} is an ensemble of networks that were trained already; name one of their runs"
        )
    if _stage(run) == PROBE and flag == "--resume":
        raise RunError(f"{flag}: {shown(run.path)} is a probe, which is made in one go; give its command again")
    config = read_yaml(run.config)
    if is_signed(canonical_content(config), _signature(run), CONFIGURATION):
        return of_known_parts(config, unknown=True)
    if trust is not None:
        if find_run(trust, FLAG).path.resolve() != run.path.resolve():
            raise RunError(f"{FLAG}: {trust} is another run than {shown(run.path)}")
        for line in named_classes(config):
            log.warning("trusted, and built: %s (in %s)", line, shown(run.config))
        return config
    kept, refused = for_training(config)
    if refused:
        raise SettingsError(
            [
                f"{line} (in {shown(run.config)}): is not taken, because the run was not made by you on this account; "
                f"read that file, and allow it with {FLAG} {shown(run.path)}"
                for line in refused
            ]
        )
    return _with_reachable_root(kept)


def require_fit(run: Workspace, flag: str) -> None:
    """Refuse a run that a Trainer of somebody's own has made: its network is not described by settings.

    Raises:
        RunError: If it is one.
    """
    if _stage(run) == FOREIGN:
        raise RunError(
            f"{flag}: {shown(run.path)} was trained by a Trainer with RunFolder; start that program again, which goes "
            "on with it and evaluates it"
        )


def _stage(run: Workspace) -> str | None:
    try:
        return read_manifest(run.manifest).stage
    except RunError:  # whoever needs the manifest tells of it
        return None


def _signature(run: Workspace) -> str | None:
    try:
        return read_manifest(run.manifest).signature
    except RunError:
        return None


def _with_reachable_root(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without a folder of archives that lacks the archive: nothing is downloaded into it."""
    data = config.get("data")
    if not isinstance(data, dict) or data.get("root") is None:
        return config
    try:
        info = dataset_info(str(data.get("dataset")))
        there = (data_root(str(data["root"])) / info.archive_name(int(data.get("resolution", 28)))).is_file()
    except (VisionForgeError, ValueError, TypeError, OSError):  # the check of the settings tells what is wrong
        there = False
    return config if there else {**config, "data": {**data, "root": None}}
