"""What makes a range or a list of choices one that can be searched, whatever the setting is."""

from decimal import Decimal

from visionforge.config.schema import Dimension


def shape_problem(dimension: Dimension, integer: bool) -> str | None:
    """Return why a dimension holds values that no trial can have, or the same one twice; None if all is well.

    Args:
        dimension: The range, or the choices as their setting reads them.
        integer: Whether a range holds whole numbers.
    """
    if dimension.choices is not None:
        return None if len(set(dimension.choices)) == len(dimension.choices) else "choices must differ from each other"
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None
    assert high is not None
    if integer and not (low.is_integer() and high.is_integer()):
        return "low and high must be whole numbers"
    if step is None:
        return None
    if integer and not step.is_integer():
        return f"step: {step:g} is not allowed; a whole number"
    last = _last(low, high, step)
    if last == Decimal(str(high)):
        return None
    return (
        f"high: {high:g} would never be tried, because it is not low plus a multiple of step ({step:g}); for instance "
        f"{float(last):g} or {float(last + Decimal(str(step))):g}"
    )


def _last(low: float, high: float, step: float) -> Decimal:
    """Return the last value of a range; as decimals, because 0.3 is no multiple of 0.1 in binary numbers."""
    first, width = Decimal(str(low)), Decimal(str(step))
    return first + (Decimal(str(high)) - first) // width * width
