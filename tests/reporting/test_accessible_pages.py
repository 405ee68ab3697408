"""Pages can be read in all colours, moved by keys, and told aloud: what a browser's audit has found, and the audit."""

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import visionforge as vf
from tests.conftest import REPOSITORY
from tests.evaluation.helpers import background_of, evaluation_of, images_of
from tests.reporting.test_study_plots import TRIALS
from tests.runs.helpers import create
from visionforge.config.schema import EvaluationSettings
from visionforge.reporting.figures.study_plots import history_plot
from visionforge.reporting.page import write_report
from visionforge.reporting.rendering import Cell, Table
from visionforge.reporting.study_page import StudyFigure, write_study_page

TEMPLATES = REPOSITORY / "src" / "visionforge" / "reporting" / "templates"
READABLE = 4.5  # contrast of small letters; WCAG 2.2, 1.4.3
AXE = "VISIONFORGE_AXE"  # environment variable: the file axe.min.js of the package axe-core


class Elements(HTMLParser):
    """The elements of a page with their attributes and what they say, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        said: list[str] = []
        self.found.append((tag, dict(attrs), said))
        if tag not in ("meta", "img", "input", "br", "link", "wbr"):
            self._open.append((tag, said))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for _, said in self._open:
            said.append(data.strip())


def report(folder: Path) -> Path:
    evaluation = evaluation_of(settings=EvaluationSettings(resamples=20))
    write_report(
        folder / "report.html", evaluation, evaluation.task.present(evaluation, images_of(evaluation), background_of())
    )
    return folder / "report.html"


def study(folder: Path) -> Path:
    trials = Table([Cell("trial"), Cell("value", "number")], [[Cell("0"), Cell("0.5", "number")]])
    drawn = StudyFigure("slice", "Value over each parameter", history_plot(TRIALS, "val/auc", False))
    write_study_page(folder / "study.html", "s", {"a": "b"}, [drawn, StudyFigure("missing", "M", None, "why")], trials)
    return folder / "study.html"


def runs(folder: Path) -> Path:
    for _ in range(2):
        run = create(folder / "outputs")
        (run.workspace.epochs).write_text("epoch,val/loss,seconds\n0,1,1\n1,0.5,1\n")
        run.finish("failed", "no memory")
    return vf.runs_page(folder / "outputs")


PAGES = {"report": report, "study": study, "runs": runs}


@pytest.fixture(params=PAGES)
def page(request, tmp_path) -> Path:
    return PAGES[request.param](tmp_path)


def test_what_scrolls_is_reached_by_keys_and_has_a_name(page):
    wide = [found for _, found, _ in Elements(page.read_text()).found if "wide" in str(found.get("class")).split()]
    assert wide
    assert all(found["tabindex"] == "0" and found["role"] == "group" and found["aria-label"] for found in wide)


def test_headings_of_tables_say_something(page):
    assert all("".join(said) for tag, _, said in Elements(page.read_text()).found if tag == "th")


def test_all_content_is_in_the_main_part(page):
    text = page.read_text()
    assert text.count("<main>") == text.count("</main>") == 1
    assert text.index("<main>") < text.index("<h1")


def test_pictures_and_controls_have_names(page):
    inside = re.findall(r"<label>.*?</label>", page.read_text(), re.DOTALL)
    for tag, found, said in Elements(page.read_text()).found:
        if tag == "img":
            assert found["alt"]
        elif tag in ("input", "select"):
            assert any(f'id="{found["id"]}"' in label for label in inside)
        elif tag == "button":
            assert "".join(said)


def test_templates_let_nothing_scroll_that_keys_do_not_reach():
    for path in TEMPLATES.glob("*.j2"):
        text = path.read_text(encoding="utf-8")
        assert 'class="wide"' not in text, path.name
        assert "<th></th>" not in text, path.name


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (each / 255 for each in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, two):
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def schemes():
    """Return the colours of the light scheme, the dark one, and paper, by their names."""
    css = (TEMPLATES / "base.css").read_text(encoding="utf-8")
    found = [dict(re.findall(r"--(\w+): ([^;]+);", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)]
    assert len(found) == 3
    return found


def rgb(text):
    if text.startswith("#"):
        digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
        return tuple(int(digits[place : place + 2], 16) for place in (0, 2, 4))
    return tuple(map(int, text.split(",")))


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark", "paper"])
def test_letters_are_readable_on_every_shade(scheme):
    heat = re.findall(r"--heat: ([\d, ]+);", (TEMPLATES / "robustness.css").read_text(encoding="utf-8"))
    for shade in (scheme["shade"], *heat):
        for share in range(101):
            part = share / 100 * float(scheme["deepest"])
            ground = [
                paper + part * (deep - paper) for paper, deep in zip(rgb(scheme["paper"]), rgb(shade), strict=True)
            ]
            assert contrast(ground, rgb(scheme["text"])) >= READABLE, (shade, share)
    for name in ("faint", "blue", "good", "bad"):
        assert contrast(rgb(scheme[name]), rgb(scheme["paper"])) >= READABLE, name
        assert contrast(rgb(scheme["faint"]), rgb(scheme["panel"])) >= READABLE


def test_curves_are_seen_on_their_ground():
    css = (TEMPLATES / "runs.css").read_text(encoding="utf-8")
    for scheme, block in zip(schemes(), re.findall(r":root \{(.*?)\}", css, re.DOTALL), strict=True):
        colours = re.findall(r"--c\d: (#\w{6})", block)
        assert len(colours) == 8
        assert all(contrast(rgb(colour), rgb(scheme["paper"])) >= 4 for colour in colours)


@pytest.mark.slow
@pytest.mark.skipif(
    AXE not in os.environ or not shutil.which("chromium"), reason=f"needs chromium, and {AXE} with the file axe.min.js"
)
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browsers_audit_finds_nothing_serious(page, tmp_path, width):
    source = Path(os.environ[AXE]).read_text(encoding="utf-8")
    run = "axe.run().then((all) => { document.body.textContent = '@@' + JSON.stringify(all.violations) + '@@'; });"
    copy = page.with_name("audited.html")
    copy.write_text(
        page.read_text(encoding="utf-8") + f"<script>{source}</script><script>{run}</script>", encoding="utf-8"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'chromium'}", "--virtual-time-budget=20000", copy.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(html.unescape(shown.split("@@")[-2]))
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []
