"""The files that are published of a run: artifacts with their proof, card, contract, results and settings."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from visionforge.config.publishable import publishable
from visionforge.distribution import own_version
from visionforge.errors import RunError
from visionforge.evaluation.comparison import positive_of
from visionforge.exporting.card import model_card
from visionforge.exporting.export import ExportResult, catalog_entry, export_network
from visionforge.inference.artifacts import load_artifact
from visionforge.publishing.card import front_matter, use
from visionforge.publishing.layout import (
    ARTIFACTS,
    CARD,
    CONTRACT,
    DESCRIPTION,
    FORMAT,
    LARGEST,
    METRICS,
    SETTINGS,
)
from visionforge.runs.owned_files import described
from visionforge.runs.query import StoredRun

# of metrics.json: they hold values of columns such as sites, which are about the persons in the pictures
_KEPT_BACK = ("subgroups", "warnings")


@dataclass(frozen=True)
class Wanted:
    """What is published.

    Attributes:
        run: The run.
        formats: Of the artifacts, each once.
        repository: ``OWNER/NAME``, which the card names; None for a folder alone.
        licence: Identifier of the licence; None says none.
        pictures: What the artifacts are proven on; None is the test split.
        root: Folder of the archives; None is as the run was configured.
        warn: Told of pictures that could not be read.
    """

    run: StoredRun
    formats: Sequence[str]
    repository: str | None
    licence: str | None
    pictures: Sequence[Path] | None
    root: str | None
    warn: Callable[[str], None]


def write_contents(wanted: Wanted, folder: Path) -> dict[str, Any]:
    """Write the files into an empty folder; return the content of `visionforge.json`, which is one of them.

    Nothing in them depends on when and where they are written, so that the same run gives the same files.

    Raises:
        VisionForgeError: If the run cannot be exported, an artifact is not the network, or a file is too large.
    """
    exports = [_export(wanted, kind, folder) for kind in wanted.formats]
    artifacts = [artifact for each in exports for artifact in each.content["artifacts"]]
    about = exports[0].content
    contract = load_artifact(folder / ARTIFACTS[wanted.formats[0]]).contract
    metrics = _published(wanted.run.metrics)
    told = {**metrics, "positive": positive_of(metrics)}
    info = catalog_entry(contract.spec.dataset)
    name = wanted.run.name if wanted.repository is None else wanted.repository.partition("/")[2]
    body = model_card(contract, info, {**about, "artifacts": artifacts}, told)
    parts = [front_matter(contract, info, told, name, wanted.licence), body]
    texts = {
        CARD: "\n".join(parts) + use(wanted.repository, [artifact["file"] for artifact in artifacts]),
        CONTRACT: contract.model_dump_json(indent=2) + "\n",
        SETTINGS: yaml.safe_dump(publishable(wanted.run.config), sort_keys=False, allow_unicode=True),
        **({METRICS: json.dumps(metrics, indent=2) + "\n"} if metrics else {}),
    }
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    files = [described(path) for path in sorted(folder.iterdir())]
    for each in files:
        if each["bytes"] > LARGEST[each["file"]]:
            raise RunError(f"run: {each['file']} has {each['bytes']:,} bytes; at most {LARGEST[each['file']]:,} can be")
    facts = ("run", "config_hash", "checkpoint", "dataset", "task", "backbone", "versions")
    content = {
        "format": FORMAT,
        "version": own_version(),
        **{fact: about[fact] for fact in facts},
        "artifacts": artifacts,
        "files": files,
    }
    (folder / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


def _export(wanted: Wanted, kind: str, folder: Path) -> ExportResult:
    """Write an artifact, proven, into the folder."""
    with tempfile.TemporaryDirectory(prefix=".export.", dir=folder) as beside:
        exported = export_network(
            run=str(wanted.run.workspace.path),
            format=kind,
            out=Path(beside) / kind,
            pictures=wanted.pictures,
            root=wanted.root,
            warn=wanted.warn,
        )
        for path in exported.artifacts:
            shutil.move(path, folder / path.name)
    return exported


def _published(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in _KEPT_BACK}
