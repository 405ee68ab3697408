"""Templates escape what they are given, miss nothing silently, and ask for nothing from outside."""

import re

import pytest
from jinja2 import UndefinedError

from tests.conftest import REPOSITORY
from visionforge.reporting.figures.interactive import training_plots
from visionforge.reporting.rendering import Cell, Table, render
from visionforge.reporting.sparklines import curves_svg
from visionforge.reporting.study_page import StudyFigure, write_figure_page, write_study_page

TEMPLATES = REPOSITORY / "src" / "visionforge" / "reporting" / "templates"
EVIL = "</script><script>alert('x')</script>\"&"
SPEC = {"data": [{"type": "bar", "x": [EVIL], "y": [1.0]}], "layout": {"title": {"text": EVIL}}}


def without_library(page: str) -> str:
    """Return a page without the scripts that are not data, and without its style."""
    return re.sub(r"<script>.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)


def test_what_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="headline"):
        render("notebook_study.html.j2", table="", link="")


def test_only_what_other_libraries_have_escaped_is_left_as_it_is():
    marked = {path.name: re.findall(r"\{\{ ([^}]*)\|safe", path.read_text()) for path in TEMPLATES.iterdir()}
    assert {name: names for name, names in marked.items() if names} == {
        "base.html.j2": ["plotly()"],
        "notebook_run.html.j2": ["curves"],
        "notebook_study.html.j2": ["curves", "table"],
    }
    assert not [path for path in TEMPLATES.iterdir() if "autoescape" in path.read_text()]


def test_templates_name_no_place_outside():
    for path in TEMPLATES.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE), path.name
        assert "url(" not in text, path.name


def test_pages_of_a_study_escape_everything(tmp_path):
    figures = [StudyFigure("drawn", EVIL, SPEC), StudyFigure("missing", EVIL, None, EVIL)]
    trials = Table([Cell(EVIL)], [[Cell(EVIL, "number")], [Cell(EVIL, "code", EVIL)]])
    write_study_page(tmp_path / "index.html", EVIL, {EVIL: EVIL}, figures, trials)
    for figure in figures:
        write_figure_page(tmp_path, EVIL, figure)
    for path in tmp_path.iterdir():
        page = path.read_text(encoding="utf-8")
        assert "default-src 'none'" in page
        assert "alert('x')" not in page
        body = without_library(page)
        assert not re.findall(r"(?:src|href)=", body)
        assert body.count("<script") == (0 if path.name == "missing.html" else 1)
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '<h2 id="drawn">' in index
    assert "too few finished trials" in index
    assert index.count("data-figure=") == 1


def test_a_page_without_figures_is_small(tmp_path):
    write_figure_page(tmp_path, "s", StudyFigure("missing", "M", None, "why"))
    page = (tmp_path / "missing.html").read_text(encoding="utf-8")
    assert "too few finished trials for this figure yet (why)" in page
    assert len(page) < 10_000


def test_curves_of_odd_series():
    assert curves_svg({}) == ""
    nan = float("nan")
    picture = curves_svg({"a<b": [1.0, nan, 2.0], "none": [nan], "empty": [], "flat": [3.0, 3.0]})
    assert picture.startswith("<svg")
    assert "a&lt;b 2" in picture
    assert picture.count("<polyline") == 2
    assert picture.count("<g ") == 4


def test_numbers_that_json_does_not_have_are_left_out_or_refused(tmp_path):
    rows = [{"epoch": 0.0, "val/loss": float("inf")}, {"epoch": 1.0, "val/loss": 0.5}]
    (losses, _) = training_plots(rows)
    assert losses["data"][0]["y"] == [0.5]
    odd = {"data": [{"type": "bar", "y": [float("inf")]}], "layout": {}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_figure_page(tmp_path, "s", StudyFigure("odd", "O", odd))
