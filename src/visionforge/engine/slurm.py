"""Jobs of SLURM: those that Lightning would wait in for ever, and those that ask to be started again."""

import logging
import os
import subprocess
from typing import TYPE_CHECKING

from visionforge.config.schema import RunSettings
from visionforge.engine.distributed import inherited_folder
from visionforge.errors import PeerEndedError, SettingsError
from visionforge.runs.config_hash import processes_of
from visionforge.runs.scheduler import detect_scheduler
from visionforge.runs.signals import Interrupted

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

log = logging.getLogger(__name__)

REQUEUE_TIMEOUT_S = 60.0
_TRIES = 3  # `srun` ends all processes of a job when one is lost, `scontrol` among them


def job_of_tasks() -> "SLURMEnvironment | None":
    """Return what Lightning makes of a job of several tasks that this process is one of; None if it is none.

    Raises:
        SettingsError: If Lightning would not take the job, or would wait in it for ever.
    """
    if os.environ.get("SLURM_NTASKS", "1") == "1" or "SLURM_PROCID" not in os.environ:
        return None
    from visionforge.engine.first_imports import import_lightning

    import_lightning()
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    if not SLURMEnvironment.detect():
        return None
    given = os.environ["SLURM_NTASKS"]
    if "SLURM_STEP_ID" not in os.environ:  # a batch script has the variables of its job, and no step
        raise SettingsError(
            f"SLURM: a job of {given} tasks, and one process without srun; begin it with srun visionforge"
        )
    try:
        return SLURMEnvironment()
    except RuntimeError as error:  # Lightning counts the tasks of each node
        raise SettingsError(
            f"SLURM: {given} tasks without --ntasks-per-node; submit the job with --nodes and --ntasks-per-node in the "
            "place of --ntasks"
        ) from error


def refuse_other_tasks(settings: RunSettings) -> None:
    """Lightning waits for the processes of a job of SLURM, also for those that it does not have.

    Raises:
        SettingsError: If this is the only task of a job, and the settings ask for several processes.
    """
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    trainer = settings.trainer.model_dump()
    wanted = processes_of(trainer)
    others = os.environ.get("WORLD_SIZE") or inherited_folder() or trainer.get("plugins")
    if wanted is None or others or os.environ.get("SLURM_NTASKS") != "1" or not SLURMEnvironment.detect():
        return
    nodes = settings.trainer.num_nodes or 1
    raise SettingsError(
        f"trainer.devices: {wanted} processes, but this job of SLURM has 1 task; submit it with --nodes={nodes} "
        f"--ntasks-per-node={wanted // nodes}, and begin it with srun visionforge"
    )


def requeue(trainer: "pl.Trainer", error: BaseException, further: bool) -> None:
    """Ask SLURM to start a job again that can go on, if the Trainer's SLURM plugin does so.

    It can after the signal that the plugin waits for, and when a process was lost: SLURM takes minutes to find out that
    a machine is gone, and all have ended by then.

    Args:
        trainer: The Trainer.
        error: What has ended the job.
        further: There is a checkpoint since it was started, so that a process that is lost each time, for instance for
            want of memory, does not start the job for ever.
    """
    from visionforge.training.checkpoints import slurm_environment

    environment = slurm_environment(trainer)
    scheduler = detect_scheduler()
    if environment is None or scheduler is None or not environment.auto_requeue or not trainer.is_global_zero:
        return
    told = isinstance(error, Interrupted) and error.number == environment.requeue_signal
    if not told and not (isinstance(error, PeerEndedError) and error.lost and further):
        return
    command = ["scontrol", "requeue", scheduler.job]
    try:
        for _ in range(_TRIES):
            done = subprocess.run(command, capture_output=True, text=True, timeout=REQUEUE_TIMEOUT_S, check=False)
            if done.returncode >= 0:
                break
    except (OSError, subprocess.SubprocessError) as problem:
        log.warning("job %s cannot be requeued (%s); submit it again", scheduler.job, problem)
        return
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"scontrol ended with {done.returncode}"
        log.warning("job %s cannot be requeued (%s); submit it again", scheduler.job, why)
    else:
        log.info("job %s is requeued", scheduler.job)
