"""`trainer.precision: auto`: what it stands for, where it is written down, and who is told."""

import pytest

import visionforge as vf
from tests.conftest import QUICK, flags, run_folders
from visionforge.cli.main import main
from visionforge.config.loading import RawConfig
from visionforge.engine.fit import request_of
from visionforge.engine.validation import check_settings
from visionforge.runs import provenance

FAST, SLOW = {"flags": "fpu avx512f avx512_bf16"}, {"flags": "fpu avx2"}  # of /proc/cpuinfo


def nested(**changes):
    raw = RawConfig()
    for name, value in {**QUICK, **changes}.items():
        raw.set(name, {"true": True, "false": False}.get(value, value), "")
    return raw


@pytest.mark.parametrize(
    ("facts", "accelerator", "stage", "expected"),
    [
        (FAST, "cpu", "fit", "bf16-mixed"),
        (FAST, "cpu", "test", "bf16-mixed"),
        (SLOW, "cpu", "fit", "32-true"),
        (FAST, "tpu", "fit", "32-true"),  # a device that is not known here
        (FAST, "cpu", "probe", "32-true"),
        (FAST, "cpu", "embed", "32-true"),
    ],
)
def test_what_it_stands_for(monkeypatch, facts, accelerator, stage, expected):
    monkeypatch.setattr(provenance, "_processor_facts", lambda: facts)
    found = check_settings(
        nested(**{"trainer.precision": "auto", "trainer.accelerator": accelerator}).values, stage, rules=False
    )
    assert found.trainer.precision == expected


def test_other_precisions_stay(monkeypatch):
    monkeypatch.setattr(provenance, "_processor_facts", lambda: FAST)
    assert check_settings(nested().values, "fit").trainer.precision == "32-true"
    assert check_settings(nested(**{"trainer.precision": "64-true"}).values, "fit").trainer.precision == "64-true"


@pytest.mark.parametrize(("facts", "expected"), [(FAST, "bf16-mixed"), (SLOW, "32-true")])
def test_a_run_is_that_of_the_precision_and_says_so(monkeypatch, tmp_path, facts, expected):
    monkeypatch.setattr(provenance, "_processor_facts", lambda: facts)
    given = {**QUICK, "trainer.max_epochs": 1, "trainer.default_root_dir": str(tmp_path)}
    auto = vf.fit(nested(**{**given, "trainer.precision": "auto"}).values)
    named = vf.fit(nested(**{**given, "trainer.precision": expected}).values)
    assert auto.config["trainer"]["precision"] == expected
    assert auto.hash == named.hash
    assert auto.metrics == named.metrics


def test_other_processes_are_told_what_was_chosen(monkeypatch):
    monkeypatch.setattr(provenance, "_processor_facts", lambda: FAST)
    assert request_of(nested(**{"trainer.precision": "auto"})).given["trainer"]["precision"] == "bf16-mixed"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"flags": "fpu avx512f avx512_bf16"}, True),
        ({"flags": "amx_bf16 amx_tile"}, True),
        ({"Features": "fp asimd bf16"}, True),
        ({"flags": "avx2 avx512f"}, False),
        ({}, False),
    ],
)
def test_processors_that_multiply_in_bfloat16(monkeypatch, facts, expected):
    monkeypatch.setattr(provenance, "_processor_facts", lambda: facts)
    assert provenance.fast_bfloat16() is expected


@pytest.mark.parametrize("fast", [True, False])
def test_it_is_offered_where_it_would_be_faster(monkeypatch, tmp_path, capsys, fast):
    monkeypatch.setattr(provenance, "_processor_facts", lambda: FAST if fast else SLOW)
    main(["doctor", "--outputs", str(tmp_path)])
    assert ("--trainer.precision auto" in capsys.readouterr().out) is fast
    out = ["--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *flags(trainer__max_epochs=1), *out]) == 0
    log = run_folders(tmp_path)[0] / "run.log"
    assert ("the CPU multiplies in bfloat16: --trainer.precision auto" in log.read_text()) is fast
