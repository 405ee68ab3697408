"""What a training imports first: Lightning and ours, and nothing that is needed only at its end or not at all."""

import gc
import json
import subprocess
import sys

import lightning.pytorch  # noqa: F401

from visionforge.engine.first_imports import import_lightning

AT_THE_END = ("sklearn", "pandas", "openpyxl", "plotly", "jinja2", "onnx", "optuna")
CODE = f"""
import gc, json, sys
from visionforge.engine.first_imports import import_lightning
import_lightning()
import visionforge.engine.training
print(json.dumps([[name for name in {AT_THE_END} if name in sys.modules], gc.isenabled(), gc.get_freeze_count() > 0]))
"""


def test_a_training_imports_nothing_that_only_its_end_needs():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], True, True]


def test_a_process_that_has_lightning_is_left_alone():
    before = gc.get_freeze_count()
    gc.disable()
    try:
        import_lightning()
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert gc.get_freeze_count() == before
