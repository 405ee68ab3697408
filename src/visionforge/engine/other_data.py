"""Whether a data set is still what a run has learnt from."""

from collections.abc import Mapping

from visionforge.data.registry import dataset_info
from visionforge.data.source import fingerprint
from visionforge.errors import VisionForgeError
from visionforge.printable import printable
from visionforge.runs.query import StoredRun


def other_data(run: StoredRun) -> str | None:
    """Return that a data set is no longer what a run was begun with, in words; None if it is, or nobody knows.

    One that was imported anew has other splits: pictures that the run has learnt from may be in its test split.
    """
    data, before = run.config.get("data"), run.manifest.data
    if not isinstance(data, Mapping) or not isinstance(before.get("md5"), str):
        return None
    name, resolution, root = before.get("dataset"), before.get("resolution"), data.get("root")
    try:
        now = fingerprint(dataset_info(str(name)), int(str(resolution)), None if root is None else str(root))
    except (VisionForgeError, TypeError, ValueError):  # which whoever reads it tells
        return None
    if now in (None, before["md5"]):
        return None
    return (
        f"{printable(name)} is another one now (MD5 {now}) than {run.name} was begun with (MD5 {before['md5'][:32]}): "
        "pictures that it has learnt from may be in any split"
    )
