"""When a trial is ended early."""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PatientPruner, PercentilePruner

from visionforge.config.schema import TuneSettings


def make_pruner(settings: TuneSettings, epochs: int) -> BasePruner:
    """Return the pruner for trials of so many epochs."""
    startup, warmup = settings.n_startup_trials, settings.n_warmup_epochs
    match settings.pruner:
        case "median":
            return MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
        case "percentile":
            return PercentilePruner(settings.percentile, n_startup_trials=startup, n_warmup_steps=warmup)
        case "hyperband":
            return HyperbandPruner(min_resource=max(1, warmup), max_resource=epochs, reduction_factor=3)
        case "patient":
            median = MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
            return PatientPruner(median, patience=settings.patience)
    return NopPruner()
