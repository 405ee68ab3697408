"""A comparison of runs as text."""

import math
from collections.abc import Mapping
from typing import Any

from visionforge.cli.arguments import heading, plain_table, print_table, say, value_text
from visionforge.evaluation.comparison import NAMES
from visionforge.evaluation.metric_names import ALL_AGREE, NO_INTERVAL, partial_text


def print_comparison(content: Mapping[str, Any]) -> None:
    """Print a comparison: every run, then means over seeds, then differences of models on the same cases."""
    table = plain_table("", *content["runs"])
    table.add_row("state", *content["states"])
    if content["positive"] is not None:
        table.add_row("positive class", *(value_text(name) for name in content["positive"]))
    if content["partial"] is not None:
        table.add_row("partial", *(partial_text(part) if part else "–" for part in content["partial"]))
    for part in (content["settings"], content["metrics"]):
        for name, row in part.items():
            table.add_row(name, *(value_text(value) for value in row))
    print_table(table)
    groups = content["groups"]
    if any(len(group["runs"]) > 1 for group in groups):
        say()
        heading("mean ± standard deviation over seeds")
        several = len(groups) > 1
        headings = [f"{group['name']} (n = {len(group['runs'])})" for group in groups]
        table = plain_table("", *(headings if several else [f"n = {len(groups[0]['runs'])}"]))
        for name in content["metrics"]:
            table.add_row(name, *(_mean_text(group["metrics"][name]) for group in groups))
        print_table(table)
    if content["differences"]:
        say()
        heading("differences on the same cases (paired bootstrap)")
        members = (
            groups
            if len(groups) > 1
            else [{"name": n, "runs": [r]} for n, r in zip(NAMES, content["runs"], strict=False)]
        )
        for group in members:
            say(f"{group['name']}: {', '.join(group['runs'])}")
        if about := content["differences"][0]["positive"]:
            say(f"positive class: {about}")
        table = plain_table("", "metric", "difference", f"{content['confidence']:.0%} interval", "p")
        for row in content["differences"]:
            interval = row["interval"]
            ends = NO_INTERVAL if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
            p = "–" if row["p"] is None else f"{row['p']:.3f}"
            table.add_row(f"{row['of']} − {row['from']}", row["metric"], f"{row['value']:+.4f}", ends, p)
        print_table(table)
        if any(row["interval"] is None and row["p"] is not None for row in content["differences"]):
            say(ALL_AGREE)
        if any(len(group["runs"]) > 1 for group in groups) and len(groups) > 1:
            say("The intervals are over the test images; the seeds' own spread is in the table above.")
    elif content["note"]:
        say()
        say(content["note"])


def _mean_text(value: Mapping[str, Any] | None) -> str:
    if value is None or not math.isfinite(value["mean"]):
        return "–"
    return f"{value['mean']:.4f}" if value["sd"] is None else f"{value['mean']:.4f} ± {value['sd']:.4f}"
