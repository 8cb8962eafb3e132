"""A SLURM site of two nodes on this machine: Debian's own slurm-wlm, real daemons, GPUs that are only counted."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
import os
from pathlib import Path
import signal
import socket
import stat
import subprocess
import sys
import time

from machine import need

# The corpus, the experiment and the readers of run folders that the tests of boot use; pytest adds that folder to the
# path only when it collects them.
sys.path.append(str(Path(__file__).resolve().parents[1] / "infra"))

NODES = ("tw1", "tw2")
CONF = """\
ClusterName=trainwright
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
JobRequeue=1
KillWait=20
InactiveLimit=0
MinJobAge=300
SlurmdTimeout=10
SlurmctldTimeout=10
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName=gpu Nodes={names} Default=YES MaxTime=UNLIMITED DefaultTime=30 State=UP OverSubscribe=NO
PartitionName=cpu Nodes={names} MaxTime=UNLIMITED DefaultTime=30 State=UP
"""


class Site:
    """The site while it is up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environ(self) -> dict[str, str]:
        """Return what commands need to find this site."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str, **variables: str) -> str:
        """Run a command of the site and return what it prints."""
        environ: Mapping[str, str] = {**self.environ, **variables}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def start(self, name: str, *command: str) -> None:
        """Start a daemon in the foreground."""
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self.start(node, "slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))

    def lose_node(self, node: str) -> None:
        """Kill a node's daemon and every process that it has started: the machine is gone."""
        daemon = self.daemons.pop(node)
        family = _family(daemon.pid) | _steps(node)
        # All at once, as a power cut would: a step that outlived the others by a moment would report their end.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        daemon.wait()

    def running(self) -> str:
        """Return the id of the one job that runs; a task of an array has one of its own."""
        return self.run("squeue", "--noheader", "--states=RUNNING", "--format=%A")

    def notify(self, job: str) -> None:
        """Send a job script what it gets ahead of its time limit.

        For a task of an array scancel sends it at once, and then waits for an answer that does not come.
        """
        command = ["scancel", "--batch", "--signal=USR1", job]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, env=self.environ, capture_output=True, check=False, timeout=5)

    def queue(self) -> list[str]:
        """Return the ids of the jobs that wait or run."""
        return self.run("squeue", "--noheader", "--array", "--format=%A").split()

    def release(self, job: str, *changes: str) -> None:
        """Let a requeued job start now: SLURM would let it wait for two minutes."""
        self.until(lambda: "Reason=BeginTime" in self.run("scontrol", "show", "job", job), f"requeue of {job}")
        # Within the second in which the old credential was revoked, a new one would be refused: hence SLURM's delay.
        time.sleep(2)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now", *changes)

    def until(self, true: Callable[[], bool], what: str, limit_s: float = 150) -> None:
        """Wait for something that the site does."""
        _until(true, what, limit_s)

    def state(self, job: str) -> str:
        """Return a job's state, also some minutes after its end."""
        found = dict(word.split("=", 1) for word in self.run("scontrol", "show", "job", job).split() if "=" in word)
        return found["JobState"]


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Bring a site up in a folder, and down again."""
    need("slurmctld", "munged")
    up = Site(folder)
    _write(folder)
    try:
        _start(up)
        with _named_hosts():
            yield up
    finally:
        for daemon in reversed(up.daemons.values()):
            daemon.terminate()
        for daemon in up.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _write(folder: Path) -> None:
    folder.chmod(0o755)
    for name in ("state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host, cores = socket.gethostname().partition(".")[0], os.cpu_count() or 1
    ports = [_free_port() for _ in range(len(NODES) + 1)]
    lines = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} RealMemory=8000 Gres=gpu:2"
        for node, port in zip(NODES, ports[1:], strict=True)
    ]
    text = CONF.format(host=host, port=ports[0], folder=folder, nodes="\n".join(lines), names=",".join(NODES))
    (folder / "slurm.conf").write_text(text)
    for number in (0, 1):
        os.mknod(folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (folder / "gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")


def _start(up: Site) -> None:
    folder = up.folder
    places = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{name}={folder / file}" for name, file in {**places, "seed-file": "munge.seed"}.items()]
    up.start("munged", "munged", "--foreground", "--force", *options)
    _until((folder / "munge.socket").exists, "munged")
    up.start("slurmctld", "slurmctld", "-D", "-c", "-f", str(folder / "slurm.conf"))
    for node in NODES:
        up.start_node(node)
    _until(lambda: up.run("sinfo", "-h", "-N", "-p", "gpu", "-o", "%t").split() == ["idle", "idle"], "both nodes")


def _until(true: Callable[[], bool], what: str, limit_s: float = 40) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if true():
                return
        except AssertionError:
            pass
        assert time.monotonic() < deadline, f"{what}: not seen in {limit_s} s"
        time.sleep(0.1)


@contextmanager
def _named_hosts() -> Iterator[None]:
    """Let the nodes' names mean this machine for a while, as a site's name service would."""
    hosts, line = Path("/etc/hosts"), f"127.0.0.1 {' '.join(NODES)} # site of {os.getpid()}\n"
    hosts.write_text(f"{hosts.read_text().rstrip()}\n{line}")
    try:
        yield
    finally:
        hosts.write_text(hosts.read_text().replace(line, ""))


def _parents() -> dict[int, int]:
    """Return the parent of every process."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    return found


def _family(pid: int) -> set[int]:
    """Return a process and all that descend from it."""
    found, parents = {pid}, _parents()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _steps(node: str) -> set[int]:
    """Return the step daemons of a node, which are no children of its slurmd, and all that they started."""
    found: set[int] = set()
    for child, parent in _parents().items():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            ours = f"SLURMD_NODENAME={node}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if ours and Path(f"/proc/{parent}/comm").read_text().strip() == "slurmstepd":
                found |= _family(parent)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
