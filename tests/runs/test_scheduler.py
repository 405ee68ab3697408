"""Batch systems are recognised by their variables."""

import pytest

from visionforge.runs.scheduler import detect_scheduler


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, ("SLURM", "12", 0)),
        (
            {"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "2", "SLURM_RESTART_COUNT": "3"},
            ("SLURM", "12_2", 3),
        ),
        ({"PBS_JOBID": "12.server"}, ("PBS", "12.server", 0)),
        ({"LSB_JOBID": "12", "LSB_JOBINDEX": "0"}, ("LSF", "12", 0)),
        ({"LSB_JOBID": "12", "LSB_JOBINDEX": "4"}, ("LSF", "12[4]", 0)),
        ({"JOB_ID": "12", "SGE_TASK_ID": "undefined"}, ("SGE", "12", 0)),
        ({"JOB_ID": "12", "SGE_ROOT": "/sge", "SGE_TASK_ID": "5"}, ("SGE", "12.5", 0)),
        ({"JOB_ID": "12"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "pod-1"}, ("Kubernetes", "pod-1", 0)),
    ],
)
def test_variables(environment, found):
    scheduler = detect_scheduler(environment)
    assert (None if scheduler is None else (scheduler.name, scheduler.job, scheduler.restarts)) == found
