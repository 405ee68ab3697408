"""What a search begins with: the values of the best trials of earlier studies, as far as it can propose them."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

from visionforge.errors import SettingsError
from visionforge.runs.files import refuse_links
from visionforge.runs.paths import shown
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.report import find_study
from visionforge.tuning.space import Space, Values
from visionforge.tuning.stored_settings import stored_tune
from visionforge.tuning.study import best_trials, load_study

log = logging.getLogger(__name__)


def earlier_values(given: tuple[str, ...], most: int, space: Space, studies: Path) -> list[Values]:
    """Return the values of the best trials of studies, the best of each first, then the second best, and so on.

    Of a trial those are taken that the space can propose; the sampler proposes the others.

    Args:
        given: Folders or names of the studies; they may be on other images, and come from strangers.
        most: How many trials of each.
        space: The space of the search.
        studies: Folder of studies that are named.

    Raises:
        SettingsError: If a study is kept in a database of its own, or no trial of it has a value for this space.
        RunError: If there is no such study, or it cannot be read.
    """
    of_each = [list(itertools.islice(_of_study(text, space, studies), most)) for text in given]
    return [values for rank in itertools.zip_longest(*of_each) for values in rank if values is not None]


def _of_study(text: str, space: Space, studies: Path) -> Iterator[Values]:
    """Yield the values of a study's trials, best first, without repeating any."""
    folder: StudyFolder = find_study(text, studies, "tune.start_from")
    refuse_links(folder.path)
    tune = stored_tune(folder.settings, None, "tune.start_from")
    seen: list[Values] = []
    for trial in best_trials(load_study(tune, folder, folder.path.name)):
        values = space.inside(trial.params)
        if values and values not in seen:
            seen.append(values)
            yield values
    if not seen:
        raise SettingsError(
            f"tune.start_from: no completed trial of {shown(folder.path)} has a value that this search could propose; "
            "leave it out, or search more of the same parameters"
        )
