"""The model card beside an artifact (Mitchell et al., 2019): what it is for, how good it is, and where it ends."""

from collections.abc import Mapping
from typing import Any

from visionforge.data.info import DatasetInfo
from visionforge.evaluation.metric_names import (
    NO_INTERVAL,
    PROVEN,
    READINGS,
    TOO_FEW,
    interval_text,
    labels_of_metrics,
    metric_name,
    partial_text,
)
from visionforge.inference.contract import Contract
from visionforge.printable import printable


def model_card(
    contract: Contract, info: DatasetInfo | None, content: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    """Return the card as Markdown.

    Args:
        contract: What the artifact takes and gives.
        info: The catalog entry of the data; None if it is not known here.
        content: The content of `export.json`.
        metrics: The content of the run's `metrics.json`, or nothing.
    """
    spec, backbone = contract.spec, contract.settings.backbone
    described = contract.as_text()
    output = described["output"]
    lines = [
        f"# {backbone.name} on {info.title if info else spec.dataset}",
        "",
        f"A network for {spec.sides_text} {'volumes' if spec.spatial_dims == 3 else 'images'}: {spec.task} with "
        f"{len(spec.classes)} {spec.kind.nouns[1]}, made with visionforge {contract.version}.",
        "",
        "## Use",
        "",
        f"- Input `images`: {described['input']['type']}, ({', '.join(map(str, contract.shape))}), "
        f"values {described['input']['values']}; {described['input']['channels']}.",
        f"- Before: {described['input']['resize']}.",
        f"- Output `{output['name']}`: {output['meaning']}, in the order: {', '.join(spec.classes)}.",
        *(f"- Output `{each['name']}`: {each['meaning']}." for each in described["further_outputs"]),
        f"- {_inside(contract)}",
        "",
        "Intended for images of the kind it was trained on, from the same source and prepared in the same way, and for "
        "research. It is no medical device, and no diagnosis may rest on it.",
        "",
        "## Data",
        "",
    ]
    if info is None:
        lines.append(f"{spec.dataset}; its catalog entry is not known here.")
    else:
        splits = info.splits
        lines += [
            f"{info.title}: {info.description} {splits.train:,} training, {splits.val:,} validation and "
            f"{splits.test:,} test images.",
            "",
            f"Licence of the images: {info.licence}. To be cited: {info.citation}",
        ]
    lines += ["", "## Results", "", *_results(contract, metrics)]
    lines += ["", "## Calibration", "", _calibration(contract, metrics)]
    lines += ["", "## The artifact against the network", "", *_parity(content), "", "## Limits", ""]
    lines += [
        "- The ranges say how much a result depends on which test images there were. They do not cover other scanners, "
        "sites, populations or years, on which it was not tested.",
        "- Its probabilities always choose among its classes, also for an image that shows none of them."
        + (" `ood_score` says how far out an image is." if contract.ood is not None else ""),
    ]
    absent = metrics.get("absent_classes") or []
    if absent:
        lines.append(f"- The test split has no case of: {', '.join(absent)}.")
    lines += ["", "## Origin", ""]
    origin = {
        "run": contract.run,
        "configuration": contract.config_hash,
        "checkpoint": contract.checkpoint,
        "averaged weights": contract.settings.averaging.name,
        "pretrained weights": backbone.weights or backbone.pretrained,
        **content["versions"],
    }
    lines += [
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in origin.items() if value is not None),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    """Return a text that neither ends a cell of a Markdown table nor its line."""
    return printable(text).replace("|", "\\|")


def _inside(contract: Contract) -> str:
    parts = "Normalisation is" if contract.temperature is None else "Normalisation and temperature are"
    spec, resized = contract.spec, ""
    if spec.network_resolution != spec.resolution:
        resized = (
            f" The network reads {spec.network_resolution} pixels; the images are brought there inside "
            f"({spec.resize.mode})."
        )
    if any(each.resize.size is not None for each in contract.inputs):
        sides = [each.resize.size or spec.resolution for each in contract.inputs]
        resized = f" Its networks read {', '.join(map(str, sides))} pixels; the images are brought there inside."
    if len(contract.views) == 1:
        return f"{parts} inside. There is no test-time augmentation inside.{resized}"
    return f"{parts} inside, and the average over {len(contract.views)} views: {', '.join(contract.views)}.{resized}"


def reading_of(contract: Contract) -> str:
    """Return which numbers of a run are those of the artifact."""
    return "without_tta" if len(contract.views) == 1 else "with_tta"


def _results(contract: Contract, metrics: Mapping[str, Any]) -> list[str]:
    reading = reading_of(contract)
    plain = metrics.get(reading)
    if not metrics.get("split"):
        return ["The run was not tested, so nothing is known of how good it is."]
    if not plain:
        return ["The run has no results of this kind."]
    intervals = metrics.get("intervals") or {}
    ranges = intervals.get(reading, {})
    share = f"{intervals['confidence']:.0%} interval" if intervals else ""
    partial = metrics.get("partial")
    count = partial_text(partial) if partial else f"{metrics['images']:,} images"
    lines = [
        f"On the {metrics['split']} split, {count}, {READINGS[reading]}:",
        "",
        f"| metric | value | {share} |",
        "|---|---|---|",
    ]
    agree = False
    for name in labels_of_metrics():
        value = plain.get(name)
        if isinstance(value, int | float):
            interval = interval_text(ranges[name], value) if name in ranges else ""
            agree |= interval == NO_INTERVAL
            lines.append(f"| {_cell(metric_name(name, metrics.get('positive')))} | {value:.4f} | {interval} |")
    return [*lines, *(["", TOO_FEW] if agree else [])]


def _calibration(contract: Contract, metrics: Mapping[str, Any]) -> str:
    if not contract.spec.kind.calibrates:
        return f"What the network says is not calibrated: there is no such method for {contract.spec.task} here."
    if contract.temperature is None:
        return "The probabilities are as the network gives them; no temperature was fitted."
    found = (metrics.get("calibration") or {}).get(reading_of(contract)) or {}
    text = f"Temperature {contract.temperature:.4g}, fitted on the validation split, is inside."
    before, after = found.get("before"), found.get("after")
    if before and after:
        text += f" Calibration error on the test split: {before['ece']:.4f} before, {after['ece']:.4f} after."
    return text


def _parity(content: Mapping[str, Any]) -> list[str]:
    lines = [
        "| file | images | largest deviation | same prediction | changes |",
        "|---|---|---|---|---|",
    ]
    for artifact in content["artifacts"]:
        parity = artifact["parity"]
        change = {name: parity["change"][name] for name in PROVEN if parity["change"].get(name) is not None}
        told = ", ".join(f"{metric_name(name, None)} {value:+.4f}" for name, value in change.items())
        lines.append(
            f"| `{artifact['file']}` | {parity['images']:,} ({parity['source']}) | {parity['largest_deviation']:.2g} "
            f"| {parity['agreement']:.2%} | {told or '–'} |"
        )
    return lines
