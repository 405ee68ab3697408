"""The figures of a study show the trials as they were, in the words of the page."""

import numpy as np
import pytest

from visionforge.reporting.figures import study_plots
from visionforge.reporting.figures.interactive import BLUE, GREY, VERMILION
from visionforge.reporting.figures.study import category_axis, number_axis
from visionforge.reporting.figures.study_plots import DrawnTrial

TIMES = ["2026-01-01T00:00", "2026-01-01T00:01", "2026-01-01T00:02"]
TRIALS = [
    DrawnTrial(0, "complete", 0.7, 5.0, {"rate": 0.1, "kind": "a"}, {0: 0.6, 1: 0.7}, *TIMES[:2]),
    DrawnTrial(1, "pruned", None, None, {"rate": 1.0, "kind": "b"}, {0: 0.3}, *TIMES[1:]),
    DrawnTrial(2, "complete", 0.9, 9.0, {"rate": 10.0, "kind": "b"}, {0: 0.8, 1: 0.9}),
    DrawnTrial(4, "complete", 0.8, 9.5, {"rate": 1.0, "kind": "a"}, {0: 0.5, 1: 0.8}),
    DrawnTrial(5, "failed", None, None, {}, {}),
]
COMPLETE = [trial for trial in TRIALS if trial.value is not None]


def axes():
    rates, kinds = ([trial.params[name] for trial in COMPLETE] for name in ("rate", "kind"))
    return {"rate": number_axis("rate", rates, log=True), "kind": category_axis("kind", kinds, ("a", "b"))}


@pytest.mark.parametrize(("minimise", "best"), [(False, [0.7, 0.9, 0.9]), (True, [0.7, 0.7, 0.7])])
def test_history_has_the_best_so_far_and_the_pruned_ones_at_their_end(minimise, best):
    pruned, complete, so_far = study_plots.history_plot(TRIALS, "val/auc", minimise)["data"]
    assert (pruned["x"], pruned["y"]) == ([1], [0.3])
    assert (complete["x"], complete["y"]) == ([0, 2, 4], [0.7, 0.9, 0.8])
    assert so_far["y"] == best


@pytest.mark.parametrize(("minimise", "number"), [(False, 2), (True, 0)])
def test_lines_cross_all_axes_and_the_best_stands_out(minimise, number):
    figure = study_plots.parallel_plot(TRIALS, list(axes().values()), "val/auc", minimise)
    *lines, best = figure["data"]
    assert best["line"]["color"] == VERMILION
    assert best["text"].startswith(f"trial {number}, the best")
    assert figure["layout"]["xaxis"]["ticktext"] == ["val/auc", "rate", "kind"]
    opacities = [line["opacity"] for line in lines]
    assert opacities == sorted(opacities)
    assert lines[-1]["y"][:-1] == best["y"]  # the darkest
    crossed = {line["text"][0]: line["y"][:3] for line in lines}
    np.testing.assert_allclose(crossed["trial 4: 0.8"], [0.5, 0.5, 0.0], atol=1e-4)


def test_of_many_trials_as_many_lines_are_drawn_as_there_are_shades():
    many = [DrawnTrial(k, "complete", k / 100, None, {}, {}) for k in range(100)]
    figure = study_plots.parallel_plot(many, [], "val/auc", False)
    assert len(figure["data"]) == study_plots.SHADES + 1
    assert sum(line["y"].count(None) for line in figure["data"]) == 100


def test_each_parameter_has_a_figure_of_the_trials_that_have_it():
    given = {**axes(), "rate": number_axis("rate", [0.1, 10.0, 1.0], log=True)}
    figure = study_plots.slices_plot(TRIALS, given, "val/auc")
    rate, kind = figure["data"]
    assert (rate["xaxis"], kind["xaxis"]) == ("x", "x2")
    np.testing.assert_allclose(rate["x"], [0, 1, 0.5])
    assert rate["y"] == kind["y"] == [0.7, 0.9, 0.8]
    assert figure["layout"]["xaxis2"]["ticktext"] == ["a", "b"]


def test_epochs_are_counted_from_one_and_states_have_their_colours():
    figure = study_plots.epochs_plot(TRIALS, "val/auc", False)
    assert [line["name"] for line in figure["data"]] == ["pruned", "complete", "complete", "best"]
    assert [line["line"]["color"] for line in figure["data"]] == [GREY, BLUE, BLUE, VERMILION]
    assert [line["showlegend"] for line in figure["data"]] == [True, True, False, True]
    assert figure["data"][-1]["x"] == [1, 2]


def test_times_and_the_trials_that_no_other_beats():
    complete, pruned = study_plots.timeline_plot(TRIALS)["data"]
    assert complete["x"] == [*TIMES[:2], None]
    assert pruned["y"] == [1, 1, None]
    beaten, front = study_plots.pareto_plot(TRIALS, [0, 2], ["val/auc", "parameters"])["data"]
    assert (beaten["x"], front["x"], front["y"]) == ([9.5], [5.0, 9.0], [0.7, 0.9])


@pytest.mark.parametrize("draw", ["history_plot", "parallel_plot", "slices_plot", "epochs_plot", "timeline_plot"])
def test_without_trials_there_is_a_reason(draw):
    arguments = {"parallel_plot": ([], "m", False), "slices_plot": ({}, "m"), "timeline_plot": ()}
    with pytest.raises(ValueError, match=r"no trial"):
        getattr(study_plots, draw)([], *arguments.get(draw, ("m", False)))


@pytest.mark.parametrize("log", [False, True])
def test_values_that_are_not_finite_do_not_squeeze_the_others(log):
    axis = number_axis("loss", [1.0, np.inf, 100.0, np.nan, 1.0], log)
    np.testing.assert_array_equal(axis.heights, [0.0, np.nan, 1.0, np.nan, 0.0])
    assert axis.ticks == {0.0: "1", 0.5: "10" if log else "50.5", 1.0: "100"}
    assert number_axis("loss", [np.inf], log).ticks == {}
    np.testing.assert_array_equal(number_axis("loss", [3.0, np.inf], log).heights, [0.5, np.nan])
