"""What of settings may leave the machine: no secrets, no folders, no hosts, and nothing that names a program."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from visionforge.config.untrusted import for_training, plain_callbacks
from visionforge.redaction import HIDDEN, redact_settings

_SECTIONS = ("seed_everything", "data", "model", "trainer", "evaluation", "probe")
_FILES = ("weights", "teacher", "network")  # settings that name a file, a folder, a run or an address
_PUBLIC = ("hf-hub:", "package:")  # prefixes of names that mean the same on every machine
# how a folder, a file or an address begins; a slash elsewhere, as in val/auc, is part of a name
_PLACE = re.compile(r"""(?:^|[\s"'=(,;:])(?:[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:[\\/]|~|\.{0,2}[\\/])""")


def publishable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is published of a run's configuration: what another machine would take of it, without places.

    Args:
        config: The nested configuration, as it was read.
    """
    kept, _ = for_training(config)
    found = {name: kept[name] for name in _SECTIONS if name in kept}
    if isinstance(data := found.get("data"), Mapping):
        found["data"] = {name: value for name, value in data.items() if name != "root"}
    if isinstance(trainer := found.get("trainer"), Mapping) and "callbacks" in trainer:
        found["trainer"] = {**trainer, "callbacks": plain_callbacks(trainer["callbacks"])}
    result: dict[str, Any] = without_places(redact_settings(found))
    return result


def without_places(tree: Any, name: str = "") -> Any:
    """Return settings in which the last part alone is left of folders, files and addresses.

    Args:
        tree: Nested mappings, lists and values.
        name: Of the setting that the value is of.
    """
    if isinstance(tree, Mapping):
        return {key: without_places(value, str(key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_places(item, name) for item in tree]
    if isinstance(tree, str) and (name in _FILES or _PLACE.search(tree)):
        return last_part(tree)
    return tree


def last_part(place: str) -> str:
    """Return the last part of a folder, a file or an address; a name that is public stays as it is.

    >>> last_part("/home/me/weights/mine.pth"), last_part("https://host/mine.pth#sha256=12"), last_part("hf-hub:a/b")
    ('mine.pth', 'mine.pth', 'hf-hub:a/b')
    """
    if place.startswith(_PUBLIC) and not _PLACE.search(place.partition(":")[2]):
        return place
    path = urlsplit(place).path if "://" in place else place
    parts = [part for part in re.split(r"[\\/]", path) if part.strip(".") and not part.startswith("~")]
    return parts[-1] if parts else HIDDEN
