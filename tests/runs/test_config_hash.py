"""The digest changes with everything that changes the result, and with nothing else."""

import copy
import inspect
import json
import os
import subprocess
import sys

import pytest
from lightning.pytorch import Trainer

from visionforge.config import RunSettings
from visionforge.config.problems import flatten
from visionforge.engine.validation import trainer_flags
from visionforge.runs.config_hash import NEUTRAL, VOLATILE, canonical, digest, with_images_of_step, with_portable_paths

BASE = RunSettings().model_dump(mode="json")
BASE["model"]["backbone"]["pretrained"] = True  # a run never has `auto`, which is settled before
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
    section = path.partition(".")[0]
    assert (digest(changed(path)) == digest(BASE)) == (path in VOLATILE or section in VOLATILE)


def test_order_of_keys_does_not_matter():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})


def test_digest_is_stable():
    assert canonical({"data": {"root": "/x", "b": 1e-6}, "a": "é"}) == '{"a":"\\u00e9","data":{"b":1e-06}}'
    assert digest({"data": {"root": "/x", "b": 1e-6}, "a": "é"}) == "5a613e"
    assert len(digest(BASE)) == 6


TABLE = {  # changes of the default settings, and their digests, which no later version may change
    "default": ({}, "9a7496"),
    "seed": ({"seed_everything": 1}, "3dff47"),
    "breastmnist": ({"data": {"dataset": "breastmnist"}}, "894428"),
    "digits": ({"data": {"dataset": "digits", "resolution": 8}, "trainer": {"max_epochs": 10}}, "265088"),
    "adamw": ({"model": {"optimizer": {"name": "adamw", "learning_rate": 1e-3}}}, "ace9b5"),
    "tiny rate": ({"model": {"optimizer": {"learning_rate": 1e-7}, "schedule": {"min_lr": 1e-8}}}, "909161"),
    "strict": ({"trainer": {"deterministic": True}}, "84be56"),
    "two devices": ({"trainer": {"devices": 2}}, "b64607"),
    "weights": ({"model": {"backbone": {"weights": "project://weights/a.pth"}}}, "1f3473"),
    "weighted classes": (
        {"data": {"balanced_sampling": False}, "model": {"loss": {"class_weights": {"é": 2.5, "b": 1}}}},
        "1c5327",
    ),
}


@pytest.mark.parametrize("devices", [2, 3, "auto"])
def test_the_number_of_devices_counts_unless_their_images_do(devices):
    def of(data: dict, count: object) -> str:
        return digest(settings({"data": data, "trainer": {"devices": count}}))

    assert (of({}, devices) == of({}, 1)) == (devices == "auto")
    assert of({"global_batch_size": 96}, devices) == of({"global_batch_size": 96}, 1) != of({}, 1)
    one, other = (
        canonical(with_images_of_step(settings({"data": data, "trainer": {"devices": count}})))
        for data, count in (({"batch_size": 32}, devices), ({"batch_size": 32 * (3 if devices == 3 else 2)}, 1))
    )
    assert (one == other) == (devices != "auto")


def settings(changes: dict) -> dict:
    """Return settings as the configuration of a fit has them, which says nothing of a probe and has settled weights."""
    found = RunSettings.model_validate(changes).model_dump(mode="json", exclude={"probe"})
    assert found["model"]["backbone"]["pretrained"] == "auto"
    found["model"]["backbone"]["pretrained"] = True
    return found


@pytest.mark.parametrize("name", TABLE)
def test_digests_never_change(name):
    changes, expected = TABLE[name]
    assert digest(settings(changes)) == expected


DIGESTS = """
import json, sys
from visionforge.config import RunSettings
from visionforge.runs.config_hash import digest

for changes in json.load(sys.stdin):
    found = RunSettings.model_validate(changes).model_dump(mode="json", exclude={"probe"})
    found["model"]["backbone"]["pretrained"] = True
    print(digest(found))
"""


def test_digest_is_the_same_in_another_process_with_another_hash_seed():
    environment = {**os.environ, "PYTHONHASHSEED": "123", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    given = json.dumps([changes for changes, _ in TABLE.values()])
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS], input=given, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == [digest(settings(changes)) for changes, _ in TABLE.values()]


def test_whole_numbers_are_the_same_with_and_without_a_point():
    assert digest({"a": 1, "b": [2.0, {"c": 3.0}]}) == digest({"a": 1.0, "b": [2, {"c": 3}]})
    assert digest({"a": 1}) != digest({"a": 1.5})


@pytest.mark.parametrize(
    ("devices", "nodes", "processes"),
    [
        ("auto", 1, None),
        (1, 1, None),
        ([3], 1, None),
        ("0,", 1, None),
        (-1, 1, None),
        ("-1", 1, None),
        (2, 1, 2),
        ("2", 1, 2),
        ([0, 1, 2], 1, 3),
        ("0,1", 2, 4),
        (1, 2, 2),
    ],
)
def test_number_of_processes_counts_where_it_is_fixed(devices, nodes, processes):
    content = json.loads(canonical({"trainer": {"devices": devices, "num_nodes": nodes}}))
    assert content.get("processes") == processes
    assert "processes" not in json.loads(canonical({"trainer": {"devices": devices}}, training=False))


def test_every_flag_of_the_trainer_is_in_or_out_on_purpose():
    for name in trainer_flags():
        changed = copy.deepcopy(BASE)
        changed["trainer"][name] = "something else"
        path = f"trainer.{name}"
        assert (digest(changed) == digest(BASE)) == (path in VOLATILE), name


def test_flags_that_are_null_or_as_lightning_has_them_do_not_count():
    defaults = {n: p.default for n, p in inspect.signature(Trainer.__init__).parameters.items() if n != "self"}
    for path, value in NEUTRAL.items():
        assert defaults[path.removeprefix("trainer.")] == value, path
    extra = {name: value for name, value in defaults.items() if name not in RunSettings().trainer.model_dump()}
    full = copy.deepcopy(BASE)
    full["trainer"] |= extra
    unknown = [n for n, v in extra.items() if v is not None and f"trainer.{n}" not in {*VOLATILE, *NEUTRAL}]
    assert not unknown, "a new default of Lightning's, to be added to NEUTRAL or VOLATILE"
    assert digest(full) == digest(BASE)


def test_paths_count_relative_to_their_anchor(tmp_path, monkeypatch):
    found = []
    for place in ("one", "two"):
        (tmp_path / place / ".git").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        weights = str(tmp_path / place / "w" / "a.pth")
        found.append(digest(settings({"model": {"backbone": {"weights": weights}}})))
        assert digest(settings({"model": {"backbone": {"weights": "w/a.pth"}}})) == found[-1]
    assert found[0] == found[1]
    assert digest(settings({"model": {"backbone": {"weights": "w/b.pth"}}})) != found[0]


def test_tags_and_addresses_are_no_paths():
    for text in ("IMAGENET1K_V1", "https://host/a.pth#sha256=00", "project://a.pth"):
        assert with_portable_paths({"model": {"backbone": {"weights": text}}})["model"]["backbone"]["weights"] == text
