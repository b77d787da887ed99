"""A Slurm of its own on this machine: munge, slurmctld and slurmd, as root, in one folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
_SETTINGS = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={slurmd_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
MaxArraySize=4
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def what_is_missing() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    gone = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(gone)}: apt-get install slurm-wlm munge" if gone else ""


class SlurmCluster:
    """A cluster of one node with two cores; MaxArraySize is 4. Within ``with``.

    Parameters
    ----------
    folder : Path
        An empty folder with a short path: a socket's path is limited.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
        } | {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "SlurmCluster":
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o700)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        port, slurmd_port = _free_port(), _free_port()
        settings = _SETTINGS.format(
            host=socket.gethostname().split(".")[0],
            folder=self.folder,
            port=port,
            slurmd_port=slurmd_port,
        )
        (self.folder / "slurm.conf").write_text(settings)
        munge = self.folder / "munge"
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        _wait_for((munge / "socket").exists)
        self._start("slurmctld", "-D", "-c")
        self._start("slurmd", "-D", "-c")
        _wait_for(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"))
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command: str) -> str:
        """The output of a command of Slurm."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"

    def log(self) -> str:
        """What the controller wrote."""
        return (self.folder / "slurmctld.log").read_text()

    def wait(self, seconds: float) -> None:
        """Wait until no job is left."""
        _wait_for(lambda: not self.ask("squeue", "-h"), seconds)

    def _start(self, *command: str) -> None:
        log = self.folder / f"{command[0]}.out"
        with log.open("wb") as out:
            self._daemons.append(
                subprocess.Popen(command, stdout=out, stderr=out, env=self.environment)
            )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so within {seconds:.0f} s")
        time.sleep(0.2)
