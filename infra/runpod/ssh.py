"""Into a pod: RunPod has no other way for a command or a port than the pod's own SSH server.

Host keys are made anew at each start of the container, so no list of known hosts can hold them. Boot prints the key's
fingerprint into the log, which comes over RunPod's API: that is what the server's key is held against.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.engine import Engine
from infra.runpod.answers import Pod
from infra.runpod.client import Client
from infra.runpod.logs import lines
from infra.shell import command_line
from trainwright.spec.exits import MissingError, UserError

FINGERPRINT = re.compile(r"sshd: on, port 22, host key (SHA256:\S+)")
SAID = re.compile(r"(sshd: .*)")
TAIL = 5000


def run_inside(client: Client, engine: Engine, pod: Pod, words: Sequence[str], *, terminal: bool) -> int:
    """Run a command in a pod, or a shell; return its exit code."""
    command = [command_line(words)] if words else []
    return _ssh(client, engine, pod, [*(["-t"] if terminal else ["-T"])], command)


def forward(client: Client, engine: Engine, pod: Pod, ports: Sequence[tuple[int, int]]) -> int:
    """Let local ports lead to ports of a pod until interrupted."""
    where = [word for here, there in ports for word in ("-L", f"127.0.0.1:{here}:127.0.0.1:{there}")]
    return _ssh(client, engine, pod, ["-N", "-o", "ExitOnForwardFailure=yes", *where], [])


def ports_of(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Read `6006:6006` or `6006`."""
    found = []
    for text in texts:
        match = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", text)
        pair = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not all(0 < port < 1 << 16 for port in pair):
            raise UserError(f"{text}: expected LOCAL:REMOTE, such as 6006:6006")
        found.append(pair)
    return found


def _ssh(client: Client, engine: Engine, pod: Pod, options: list[str], command: list[str]) -> int:
    if pod.status != "RUNNING":
        raise UserError(f"{pod.id}: is {pod.status}, and only a RUNNING pod can be entered")
    if pod.ssh is None:
        way = "it needs 22/tcp in ports and startSsh, and a key in your RunPod account; mappings may take a minute"
        raise MissingError(f"{pod.id}: RunPod names no SSH port of it; {way}")
    host, port = pod.ssh
    with TemporaryDirectory() as folder:
        known = Path(folder) / "known_hosts"
        known.write_text(_known_host(client, engine, pod.id, host, port), encoding="utf-8")
        sure = ("-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR")
        return engine.show("ssh", *options, *sure, "-p", str(port), f"root@{host}", *command)


def _known_host(client: Client, engine: Engine, pod_id: str, host: str, port: int) -> str:
    """Return the server's key as a line of known_hosts, once its fingerprint is the one in the pod's log."""
    said = [match[1] for line in lines(client, pod_id, tail=TAIL) if (match := SAID.search(line.text))]
    prints = [match[1] for text in said if (match := FINGERPRINT.search(text))]
    if not prints:
        why = said[-1] if said else "its log does not say that an SSH server was started"
        raise MissingError(f"{pod_id}: cannot be entered: {why}")
    answer = engine.ask("ssh-keyscan", "-T", "10", "-t", "ed25519", "-p", str(port), host)
    for line in answer.out.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fingerprint(fields[2]) == prints[-1]:
            return f"{line}\n"
    if not answer.out.strip():
        raise MissingError(f"{host}:{port}: no SSH server answers yet; try again in a minute")
    raise UserError(f"{host}:{port}: shows another key than {pod_id} printed in its log; somebody is in between")


def fingerprint(key: str) -> str:
    """Return the SHA-256 fingerprint of a public key, as ssh-keygen writes it."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
