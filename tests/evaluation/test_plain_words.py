"""A result in words says the same as the table beside it."""

import re

import pytest

from tests.evaluation.helpers import evaluation_of
from visionforge.config.schema import EvaluationSettings
from visionforge.evaluation.plain_words import in_words

SETTINGS = EvaluationSettings(resamples=60)


def test_two_classes_are_told_with_the_positive_one_first():
    found = evaluation_of("binary", settings=SETTINGS)
    text = in_words(found)
    estimate = found.best.estimate
    assert text.startswith(
        f"On 60 test images the network is right in {100 * estimate.overall['accuracy']:.0f} %, between "
    )
    first, second = re.findall(r"hundred (.+?) it misses about (\d+)", text)
    assert first[0] == found.positive
    for name, count in (first, second):
        k = found.spec.classes.index(name)
        assert int(count) == round(100 * (1 - estimate.per_class["sensitivity"][k]))
        low, high = estimate.class_intervals["sensitivity"][k]
        assert f"between {round(100 * (1 - high))} and {round(100 * (1 - low))} ({found.support[k]} cases)" in text


@pytest.mark.parametrize("task", ["multi-class", "ordinal"])
def test_of_several_classes_those_that_are_missed_most_and_least(task):
    found = evaluation_of(task, settings=SETTINGS)
    shares = found.best.estimate.per_class["sensitivity"]
    told = re.findall(r"hundred (.+?) it misses", in_words(found))
    assert [found.spec.classes.index(name) for name in told] == [shares.index(min(shares)), shares.index(max(shares))]


def test_without_intervals_and_without_mistakes():
    bare = in_words(evaluation_of("binary", settings=EvaluationSettings(resamples=0)))
    assert "between" not in bare
    assert "right in 100 %" in in_words(evaluation_of("binary", perfect=True, settings=SETTINGS))


def test_a_class_without_a_case_is_not_told():
    found = evaluation_of("multi-class", absent=True, settings=SETTINGS)
    assert found.absent
    assert not any(f"hundred {name} " in in_words(found) for name in found.absent)


def test_several_labels_of_an_image_are_no_misses_of_a_hundred():
    assert in_words(evaluation_of("multi-label", settings=SETTINGS)) is None
