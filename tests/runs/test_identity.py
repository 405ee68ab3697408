"""The digest changes with everything that changes the result, and with nothing else."""

import copy

import pytest

from visionforge.config import RunSettings
from visionforge.config.problems import flatten
from visionforge.runs.identity import VOLATILE, canonical, digest

BASE = RunSettings().model_dump(mode="json")
LEAVES = [p for p, f in flatten(RunSettings).items() if not hasattr(f.annotation, "model_fields")]


def changed(path: str) -> dict:
    config = copy.deepcopy(BASE)
    *parents, leaf = path.split(".")
    section = config
    for part in parents:
        section = section[part]
    section[leaf] = "something else"
    return config


@pytest.mark.parametrize("path", LEAVES)
def test_every_setting_is_in_or_out_on_purpose(path):
    assert (digest(changed(path)) == digest(BASE)) == (path in VOLATILE)


def test_order_of_keys_does_not_matter():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})


def test_digest_is_stable():
    assert canonical({"data": {"root": "/x", "b": 1e-6}, "a": "é"}) == '{"a":"\\u00e9","data":{"b":1e-06}}'
    assert digest({"data": {"root": "/x", "b": 1e-6}, "a": "é"}) == "5a613e"
    assert len(digest(BASE)) == 6
