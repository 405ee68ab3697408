"""`README.md` of a published network: the model card, and in front of it what the Hugging Face Hub reads of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from visionforge.data.info import DatasetInfo, TaskSpec
from visionforge.distribution import how_to_install
from visionforge.evaluation.metric_names import labels_of_metrics, metric_name
from visionforge.exporting.card import reading_of
from visionforge.inference.contract import Contract

LIBRARY = "visionforge"
_TYPES = {"auc": "roc_auc", "f1_macro": "f1"}  # names of metrics that the Hub has under others
_DIGITS = 6  # of a metric; no test split tells more


def front_matter(
    contract: Contract, info: DatasetInfo | None, metrics: Mapping[str, Any], name: str, licence: str | None
) -> str:
    """Return the YAML between two lines of dashes that begins a card on the Hub.

    Args:
        contract: What the artifact takes and gives.
        info: The catalog entry of the data; None if it is not known here.
        metrics: The content of the run's `metrics.json`, or nothing.
        name: Of the network.
        licence: Identifier of its licence, as the Hub has them; None says none.
    """
    spec = contract.spec
    found = _found(contract, metrics)
    content: dict[str, Any] = {
        "library_name": LIBRARY,
        "pipeline_tag": _pipeline(spec),
        **({} if licence is None else {"license": licence}),
        "tags": [LIBRARY, contract.settings.backbone.name, spec.task, *(["volumes"] if spec.spatial_dims == 3 else [])],
        "datasets": [spec.dataset],
    }
    if found:
        title = info.title if info else spec.dataset
        content["metrics"] = [each["type"] for each in found]
        content["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": _pipeline(spec)},
                        "dataset": {"name": title, "type": spec.dataset, "split": metrics["split"]},
                        "metrics": found,
                    }
                ],
            }
        ]
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)
    return f"---\n{text}---\n"


def _pipeline(spec: TaskSpec) -> str:
    """Return the Hub's name of what a network does; volumes have none of their own."""
    if spec.kind.detects:
        return "object-detection"
    return "image-segmentation" if spec.kind.decodes else "image-classification"


def _found(contract: Contract, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics of the artifact's reading, as the Hub takes them; none if the run was not tested."""
    values = metrics.get(reading_of(contract)) or {}
    return [
        {
            "type": _TYPES.get(name, name),
            "value": round(float(values[name]), _DIGITS),
            "name": metric_name(name, metrics.get("positive")),
        }
        for name in labels_of_metrics()
        if name != "loss" and isinstance(values.get(name), int | float)
    ]


def use(repository: str | None, artifacts: Sequence[str]) -> str:
    """Return the section that says how the network is fetched and used.

    Args:
        repository: ``OWNER/NAME`` on the Hub; None for a folder alone.
        artifacts: The files that predict.
    """
    folder = "" if repository is None else f"{repository.partition('/')[2]}/"
    lines = [
        how_to_install("hub"),
        *([] if repository is None else [f"visionforge pull {repository}"]),
        *(f"visionforge predict --model {folder}{name} --images photos/" for name in artifacts),
    ]
    text = "\n".join(lines)
    return (
        f"\n## With visionforge\n\n```bash\n{text}\n```\n\n`visionforge.json` lists the files with their SHA-256, "
        "`config.yaml` has the settings of the training, `metrics.json` all results, `config.json` what the network "
        "takes and gives.\n"
    )
