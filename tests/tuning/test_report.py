"""The page of a study with many trials: what is drawn of them."""

import re

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from visionforge.tuning import figures
from visionforge.tuning.figures import for_figures, to_draw, write_figures
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.report import summary

RANGES = {"data.a": optuna.distributions.FloatDistribution(0, 1), "b": optuna.distributions.FloatDistribution(0, 1)}


def study(count: int, direction: str = "maximize") -> optuna.Study:
    rng, made = np.random.default_rng(3), optuna.create_study(direction=direction)
    for number in range(count):
        pruned = number % 5 == 4
        made.add_trial(
            create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                params={"data.a": rng.uniform(), "b": rng.uniform()},
                distributions=RANGES,
                value=None if pruned else rng.uniform(),
                intermediate_values={0: rng.uniform()},
            )
        )
    return made


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_of_many_trials_the_best_the_records_and_an_even_share_are_drawn(direction):
    whole = study(400, direction)
    drawn = to_draw(whole, 60)
    numbers = [trial.number for trial in drawn]
    assert len(drawn) == 60
    assert numbers == sorted(set(numbers))
    complete = whole.get_trials(states=[TrialState.COMPLETE])
    sign = 1 if direction == "minimize" else -1
    best = sorted(complete, key=lambda trial: sign * trial.value)[:15]
    assert {trial.number for trial in best} <= set(numbers)
    running = np.minimum.accumulate([sign * trial.value for trial in complete])
    records = {complete[i].number for i in range(len(complete)) if i == 0 or running[i] < running[i - 1]}
    assert records <= set(numbers)
    gaps = np.diff(numbers)
    assert gaps.max() < 30
    share = np.mean([trial.state == TrialState.PRUNED for trial in drawn if trial not in best])
    assert 0.1 < share < 0.35


def test_trials_keep_their_numbers_and_the_page_says_how_many_it_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MOST_DRAWN", 30)
    whole, place = study(200), StudyFolder(tmp_path / "many")
    drawn = to_draw(whole, 30)
    copy = for_figures(whole, drawn, {"data.a": "a", "b": "b"})
    assert [trial.number for trial in copy.get_trials()] == [trial.number for trial in drawn]
    assert copy.get_trials()[3].params.keys() == {"a", "b"}
    content = summary(whole, ["val/auc"], {})
    place.path.mkdir()
    write_figures(whole, place, content)
    page = (place.path / "index.html").read_text()
    assert page.count("<tr>") <= 31
    assert "There are too few" not in page  # each figure is drawn
    assert "30 trials: the best, and an even share of the others; all are in" in page
    assert len(content["trials"]) == 200
    assert {path.name for path in place.figures.glob("*.png")} >= {"optimization_history.png", "param_importances.png"}


@pytest.mark.slow
def test_a_contour_of_many_trials_has_not_a_value_for_each_two_of_them(tmp_path):
    place = StudyFolder(tmp_path / "many")
    place.path.mkdir()
    whole = study(600)
    write_figures(whole, place, summary(whole, ["val/auc"], {}))
    sizes = {path.stem: path.stat().st_size for path in place.figures.glob("*.html")}
    assert sizes["contour"] < sizes["slice"] + 1_000_000


@pytest.mark.parametrize("objectives", [1, 2])
def test_values_that_are_not_finite_are_on_no_axis(tmp_path, objectives):
    made = optuna.create_study(directions=["minimize"] * objectives)
    for number, value in enumerate([0.5, np.inf, 0.25, 0.75, 0.5, 0.1]):
        made.add_trial(
            create_trial(
                params={"data.a": number / 10, "b": 0.5},
                distributions=RANGES,
                values=[value, 1.0][:objectives],
                intermediate_values={0: np.nan, 1: value} if objectives == 1 else {},
            )
        )
    place = StudyFolder(tmp_path / "odd")
    place.path.mkdir()
    told = summary(made, ["val/loss", "parameters"][:objectives], {})
    assert [row["last_value"] for row in told["trials"]][:3] == ([0.5, None, 0.25] if objectives == 1 else [None] * 3)
    write_figures(made, place, told)
    page = (place.path / "index.html").read_text()
    assert page.count('class="plot"') == 7  # all but one of epochs, which two objectives have not, or of their front
    assert "Infinity" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_without_a_parameter_that_tells_there_is_a_sentence(tmp_path):
    place = StudyFolder(tmp_path / "few")
    place.path.mkdir()
    few = study(3)
    write_figures(few, place, summary(few, ["val/auc"], {}))
    assert "importances need" in (place.path / "index.html").read_text()
