"""The notebooks run from their first cell to their last, and what their cells end with shows itself."""

import ast
import json

import pytest

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))


def run_cell(source: str, names: dict) -> object:
    """Run a cell as a notebook does, and return the value of its last line."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "it is stored without results"
            shown.append(run_cell("".join(cell["source"]), names))
    pages = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_")]
    assert pages
    assert all("<table" in page and "<script" not in page for page in pages)
    assert all(repr(value) for value in shown)


@pytest.mark.slow
def test_in_a_kernel_lines_come_once_and_bars_stay(tmp_path):
    """A second training in one kernel says everything once; nothing stands on the ground of errors."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    settings = {
        "model": {"backbone": {"name": "mini_cnn"}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "default_root_dir": str(tmp_path)},
        "evaluation": {"resamples": 0, "explanations": 0, "figures": False, "report": False},
    }
    cells = [
        f"import visionforge as vf\nrun = vf.fit(['quickstart', {settings!r}])",
        f"again = vf.fit(['quickstart', {settings!r}], seed_everything=7)\nvf.compare([run, again], resamples=50)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in notebook.cells:
        said = "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")
        assert [said.count(f"epoch {number}, ") for number in (1, 2)] == [1, 1]
        errors = [output["text"] for output in cell.outputs if output.get("name") == "stderr"]
        assert not [text for text in errors if not text.startswith("Matplotlib is building")]
        pages = [output["data"].get("text/html", "") for output in cell.outputs if "data" in output]
        bars = [page for page in pages if "<progress" in page]
        assert "trained, 2 epochs" in bars[0]
        assert 'value="1.0000"' in bars[0]
    assert "differences on the same cases" in notebook.cells[-1].outputs[-1]["data"]["text/html"]
