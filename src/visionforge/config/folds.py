"""Which settings of folds go together."""

from visionforge.config.schema.data import FOLD_POOLS, DataSettings

_OF_FOLDS = ("fold", "fold_pool", "fold_repeats", "fold_seed")


def fold_problems(data: DataSettings, whole: bool = True) -> list[str]:
    """Return a line for each setting of folds that does not fit the others.

    Args:
        data: The settings of the data.
        whole: Folds without one that is held out are allowed, as an ensemble of all of them has.
    """
    if data.folds is None:
        given = [name for name in _OF_FOLDS if getattr(data, name) != DataSettings.model_fields[name].default]
        return [f"data.{name}: is given without data.folds; say how many folds there are" for name in given]
    last = data.folds * data.fold_repeats - 1
    problems = []
    if "test" in FOLD_POOLS[data.fold_pool] and data.folds < 3:
        problems.append(
            f"data.folds: {data.folds} is not allowed with data.fold_pool {data.fold_pool}, where one fold tests and "
            "another validates; allowed: at least 3"
        )
    if data.fold is None and not whole:
        problems.append(
            f"data.fold: is not given; name the fold that is held out, 0 to {last}, or train all with "
            f"`visionforge fit --folds {data.folds}`"
        )
    if data.fold is not None and data.fold > last:
        problems.append(f"data.fold: {data.fold} is not allowed; allowed: 0 to {last}")
    return problems
