"""When a trial is ended early, or paused."""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PatientPruner, PercentilePruner

from visionforge.config.schema import TuneSettings
from visionforge.tuning.halving import HalvingPruner, Ladder


def make_pruner(settings: TuneSettings, epochs: int) -> BasePruner:
    """Return the pruner for trials of so many epochs."""
    if (ladder := Ladder.of(settings, epochs)) is not None:
        return HalvingPruner(ladder)
    startup, warmup = settings.n_startup_trials, settings.n_warmup_epochs
    match settings.pruner:
        case "median":
            return MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
        case "percentile":
            return PercentilePruner(settings.percentile, n_startup_trials=startup, n_warmup_steps=warmup)
        case "hyperband":
            lowest, factor = max(1, warmup), settings.reduction_factor
            return HyperbandPruner(min_resource=lowest, max_resource=epochs, reduction_factor=factor)
        case "patient":
            median = MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
            return PatientPruner(median, patience=settings.patience)
    return NopPruner()
