"""`visionforge probe`: a classifier of a network's features."""

from visionforge.cli.command import Command
from visionforge.cli.commands.fit import print_fit, print_fold, print_folds, print_run, print_seed, print_seeds
from visionforge.cli.stages import read_settings
from visionforge.runs.signals import Interruption


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    raw = read_settings("probe", arguments)
    if raw is None:
        return 0
    from visionforge.engine.probe import PROBES, probe, probe_folds, probe_request
    from visionforge.engine.seeds import fit_seeds

    seeds, folds = (raw.values.pop(name, None) for name in ("seeds", "folds"))
    with Interruption() as interruption:
        if folds is not None:
            print_folds(probe_folds(raw, folds, interruption, print_fold, print_run, seeds), raw.json)
        elif seeds is not None:
            found = fit_seeds(raw, str(seeds), interruption, print_seed, print_run, PROBES)
            print_seeds(found, raw.json)
        else:
            print_fit(probe(probe_request(raw), interruption), raw.json)
    return 0


COMMAND = Command(
    "probe",
    "fit a classifier to the features of a network that stays as it is; a run like any other",
    run,
    place=15,
    examples=("probe --data.dataset breastmnist --data.resolution 224", "probe --run latest --probe.classifier knn"),
)
