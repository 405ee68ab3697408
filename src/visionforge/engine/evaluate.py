"""The evaluation of a trained network on a split, and its predictions of the test split."""

import os
from collections.abc import Mapping

from visionforge.config.environment import warn_of_environment
from visionforge.config.loading import RawConfig
from visionforge.config.schema import RunSettings
from visionforge.config.seeding import STRICT_VARIABLE
from visionforge.data.info import Split
from visionforge.engine.first_imports import import_lightning
from visionforge.engine.run import EvaluationResult
from visionforge.engine.validation import check_arguments
from visionforge.inference.loading import Target, find_target
from visionforge.runs.logfile import RunLog
from visionforge.runs.signals import Interruption

STAGES: dict[str, Split] = {"test": "test", "validate": "val", "predict": "test"}


def evaluate(raw: RawConfig, stage: str = "test") -> EvaluationResult:
    """Evaluate a run or a checkpoint on a split and write the results, or only its predictions.

    The results of the fit itself are never overwritten: those of later evaluations lie in folders of their own.

    Args:
        raw: The settings as they were given, and `run` and `ckpt_path`, which name the network. The settings of its
            training lie underneath.
        stage: `test`, `validate` (the validation split), or `predict` (probabilities of the test split only).

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    target, settings, sources = target_of(raw, stage)
    if settings.trainer.deterministic:
        os.environ.setdefault(*STRICT_VARIABLE)

    import_lightning()  # see `fit.fit`
    from visionforge.engine.construction import Construction
    from visionforge.engine.distributed import current_rank
    from visionforge.engine.evaluating import Evaluating

    with RunLog(settings.log_level, current_rank()) as run_log:
        warn_of_environment()
        construction = Construction(settings, evaluation=True, sources=sources)
        evaluating = Evaluating(construction, run_log, Interruption(), stage, target)
        evaluating.run()
    return EvaluationResult(evaluating.workspace.path, target.checkpoint, evaluating.images)


def target_of(raw: RawConfig, stage: str, rules: str | None = None) -> tuple[Target, RunSettings, Mapping[str, str]]:
    """Find the trained network and check the settings; those of its training lie underneath.

    Args:
        raw: The settings as they were given, and `run` and `ckpt_path`, which name the network.
        stage: `test`, `validate`, `predict`, or another command, for messages.
        rules: The stage whose rules the settings are checked by; None is the same.

    Returns:
        The network, the settings, and where each was written.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    raw = raw.copy()
    target = find_target(stage, raw.values.pop("run", None), raw.values.pop("ckpt_path", None))
    source = f"in {target.checkpoint.parent.parent / 'config.yaml'}" if target.run else "in the checkpoint"
    raw = raw.over(target.config, source)
    return target, check_arguments(raw, rules or stage), raw.sources
