"""Which batch system a process runs under; on a shared cluster nothing is killed that was not started here."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Scheduler:
    """The batch system of this process.

    Attributes:
        name: `SLURM`, `PBS`, `LSF`, `SGE` or `Kubernetes`.
        job: Its number or name for the job, with the array task.
        restarts: How often the job was started again.
    """

    name: str
    job: str
    restarts: int = 0

    def as_dict(self) -> dict[str, str | int]:
        """Return the fields as plain values."""
        return asdict(self)


def detect_scheduler(environment: Mapping[str, str] | None = None) -> Scheduler | None:
    """Return the batch system that the environment variables tell of, or None.

    Args:
        environment: The variables; None takes those of the process.
    """
    env = os.environ if environment is None else environment
    if job := env.get("SLURM_JOB_ID"):
        array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
        return Scheduler("SLURM", f"{array}_{task}" if array and task else job, _count(env.get("SLURM_RESTART_COUNT")))
    if job := env.get("PBS_JOBID"):
        return Scheduler("PBS", job)
    if job := env.get("LSB_JOBID"):
        index = env.get("LSB_JOBINDEX", "0")
        return Scheduler("LSF", f"{job}[{index}]" if index != "0" else job)
    if (job := env.get("JOB_ID")) and ("SGE_ROOT" in env or "SGE_TASK_ID" in env):
        task = env.get("SGE_TASK_ID", "undefined")
        return Scheduler("SGE", f"{job}.{task}" if task != "undefined" else job)
    if "KUBERNETES_SERVICE_HOST" in env:
        return Scheduler("Kubernetes", env.get("HOSTNAME", "unknown"))
    return None


def _count(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
