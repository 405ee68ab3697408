"""A SLURM cluster of two nodes on this host: real daemons of their own, which end with it."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.runs.helpers import wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
SBIN = "/usr/sbin:/usr/local/sbin"
HOST = socket.gethostname().partition(".")[0]
NODES = (HOST, f"{HOST}-other")  # the first is the address at which processes meet

CONFIGURATION = """\
ClusterName=two
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=30
MinJobAge=600
ReturnToService=2
MpiDefault=none
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=20000
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.2 Port={ports[2]} CPUs=4 RealMemory=20000
PartitionName=day Nodes={nodes[0]},{nodes[1]} Default=YES MaxTime=1-0 State=UP PriorityTier=1
PartitionName=urgent Nodes={nodes[0]},{nodes[1]} MaxTime=1-0 State=UP PriorityTier=10
"""


def missing() -> list[str]:
    """Return which programs of SLURM are not here."""
    path = f"{os.environ['PATH']}:{SBIN}"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


class Cluster:
    """Daemons and their folder.

    Args:
        folder: An empty folder.

    Attributes:
        environment: Variables with which programs reach the cluster.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"PATH": f"{os.environ['PATH']}:{SBIN}", "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        """Start the daemons, and wait until both nodes are ready."""
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        text = CONFIGURATION.format(folder=self.folder, host=HOST, nodes=NODES, user=getpass.getuser(), ports=ports)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        own = {"socket": "munge.socket", "log-file": "munge.log", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        options = [f"--{name}={self.folder / file}" for name, file in own.items()]
        self._begin("munged", "--foreground", "--force", f"--key-file={key}", *options)
        wait_for((self.folder / "munge.socket").exists)
        self._begin("slurmctld", "-D", "-c")
        for node in NODES:
            self.start_node(node)
        wait_for(self._is_ready, 60)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._begin("slurmd", "-D", "-N", node, name=node)

    def lose_node(self, node: str) -> None:
        """Kill the daemon of a node, and all that runs there."""
        self._daemons.pop(node).kill()
        self.kill_tasks(node)

    def kill_tasks(self, node: str) -> None:
        """Kill the processes of the jobs on a node."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            own = (f"SLURM_CONF={self.folder / 'slurm.conf'}", f"SLURMD_NODENAME={node}")
            if all(text.encode() in variables for text in own):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)

    def ask(self, *command: str) -> str:
        """Return what a program of SLURM prints."""
        done = self._run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def _is_ready(self) -> bool:
        """Return whether both nodes wait for jobs; the daemons may still begin, and not answer."""
        return self._run("sinfo", "--noheader", "--partition=day", "--format=%T %D").stdout.strip() == "idle 2"

    def facts(self, job: str) -> dict[str, str]:
        """Return what SLURM knows of a job."""
        words = self.ask("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_until(self, job: str, state: str, seconds: float = 240.0) -> dict[str, str]:
        """Wait until a job has a state such as COMPLETED, and return what SLURM knows of it."""
        deadline = time.monotonic() + seconds
        while (facts := self.facts(job))["JobState"] != state:
            ended = facts["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
            assert not ended, (facts, self.logs())
            assert time.monotonic() < deadline, (facts, self.logs())
            time.sleep(0.2)
        return facts

    def logs(self) -> str:
        """Return the end of what the daemons have told."""
        return "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """End all jobs and daemons."""
        controller = self._daemons.get("slurmctld")
        if controller is not None and controller.poll() is None:
            self.ask("scancel", "--user", getpass.getuser())
            wait_for(lambda: not self.ask("squeue", "--noheader").strip(), 60)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            daemon.wait(20)

    def _begin(self, program: str, *options: str, name: str | None = None) -> None:
        with (self.folder / f"{name or program}.out").open("ab") as log:
            self._daemons[name or program] = subprocess.Popen(
                [program, *options], env={**os.environ, **self.environment}, stdout=log, stderr=log, cwd=self.folder
            )
