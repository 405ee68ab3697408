"""The smoke command passes on a healthy installation and fails on a broken one."""

import pytest

from visionforge.cli.main import main
from visionforge.config.loading import read_values
from visionforge.engine import smoke
from visionforge.engine.fit import request_of


@pytest.mark.slow
def test_smoke_passes(capsys):
    assert main(["smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[:-1]] == ["✓"] * len(smoke.STAGES)
    assert lines[-1].startswith(f"{len(smoke.STAGES)} of {len(smoke.STAGES)} stages passed")


def test_a_failing_stage_is_told_and_the_others_still_run(monkeypatch, capsys):
    def broken(bench):
        raise OSError("the stage is broken")

    def mistaken(bench):
        request_of(read_values(None, {"data.batch_size": 0}))

    monkeypatch.setitem(smoke.STAGES, "weight transfer", broken)
    monkeypatch.setitem(smoke.STAGES, "fit", mistaken)
    for name in list(smoke.STAGES):
        if name not in ("data", "weight transfer", "fit"):
            monkeypatch.delitem(smoke.STAGES, name)
    assert main(["smoke"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("✓ data")
    assert lines[1].startswith("✗ weight transfer: OSError: the stage is broken (test_smoke.py:")
    assert lines[2].startswith("✗ fit: error: data.batch_size: 0 is not allowed")
    assert lines[3].startswith("1 of 3 stages passed")
