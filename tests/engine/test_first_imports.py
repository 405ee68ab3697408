"""What a training imports first: Lightning and ours, and nothing that is needed only at its end or not at all."""

import gc
import json
import logging
import subprocess
import sys

import lightning.pytorch  # noqa: F401
import pytest
from PIL import Image

from visionforge.engine.first_imports import import_lightning

AT_THE_END = ("sklearn", "pandas", "openpyxl", "plotly", "jinja2", "onnx", "optuna")
OF_A_SOURCE = ("visionforge.data.importing", "visionforge.engine.starter")
CODE = f"""
import gc, json, sys
from visionforge.engine.first_imports import import_lightning
import_lightning()
import visionforge.engine.training
from visionforge.cli.main import main
main(['fit', '--print_config'])
loaded = [name for name in {AT_THE_END + OF_A_SOURCE} if name in sys.modules]
print(json.dumps([loaded, gc.isenabled(), gc.get_freeze_count() > 0]))
"""


def test_a_training_imports_nothing_that_only_its_end_needs():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[], True, True]


ASKED = """
import json, sys
from visionforge.cli.main import main
status = main(["predict", "--images", "one.png", "--run", sys.argv[1], "--out", "said.csv"])
trained = ("lightning", "torchvision", "torch._dynamo", "scipy", "matplotlib", "sklearn", "pandas")
print(json.dumps([status, [name for name in trained if name in sys.modules]]))
"""


def test_a_network_that_is_asked_loads_nothing_that_trains(plain_run):
    Image.new("RGB", (28, 28)).save("one.png")
    done = subprocess.run([sys.executable, "-c", ASKED, str(plain_run)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_a_process_that_has_lightning_is_left_alone():
    before = gc.get_freeze_count()
    gc.disable()
    try:
        import_lightning()
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert gc.get_freeze_count() == before


@pytest.mark.parametrize(("asked", "given", "expected"), [("", 0, logging.WARNING), ("", 10, 10), ("all", 0, 0)])
def test_process_groups_are_quiet_also_where_lightning_was_imported_before(monkeypatch, asked, given, expected):
    logger = logging.getLogger("torch.distributed.distributed_c10d")
    monkeypatch.setattr(logger, "level", given)
    monkeypatch.delenv("TORCH_LOGS", raising=False)
    if asked:
        monkeypatch.setenv("TORCH_LOGS", asked)
    import_lightning()
    assert logger.level == expected
