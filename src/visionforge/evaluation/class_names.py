"""What the classes, and the columns of their probabilities, are called in every table."""

from visionforge.data.info import TaskSpec

SHOWN, RAW, RAW_TTA = "probability", "raw_probability", "raw_tta_probability"


def unique_names(spec: TaskSpec) -> list[str]:
    """Return a name per class that no other has; names that are equal or empty are told apart by their numbers.

    >>> unique_names(spec_of("other", "cat", "other"))  # doctest: +SKIP
    ['0_other', '1_cat', '2_other']
    """
    names = [spec.kind.cell_name(name) for name in spec.classes]
    if len(set(names)) == len(names) and all(names):
        return names
    return [f"{index}_{name}" for index, name in enumerate(names)]


def probability_columns(spec: TaskSpec, kind: str = SHOWN) -> list[str]:
    """Return the names of the columns of the probabilities.

    Args:
        spec: The task.
        kind: `SHOWN` is the probability that a network states: calibrated, over the test-time views if they are on.
            `RAW` is that of the image alone, and `RAW_TTA` the mean over the views, both before calibration.
    """
    return [f"{kind}_{name}" for name in unique_names(spec)]
