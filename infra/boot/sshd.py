"""The container's SSH server, for sites that reach into a container only by SSH (RunPod's exec and port forwarding).

It starts with a public key and as root, or not at all. Host keys are made anew in scratch at each start, so that no
image and no volume holds one; there are no passwords.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

KEY_VARIABLE = "PUBLIC_KEY"
"""As RunPod sets it: lines of an authorized_keys file."""
SERVER = "/usr/sbin/sshd"
SEPARATION = Path("/run/sshd")
"""An empty folder that the server insists on."""
SEEN_BY_LOGINS = ("PATH", "PYTHONSAFEPATH", "TRAINWRIGHT_ROOT", "TRAINWRIGHT_IN_IMAGE", "LD_LIBRARY_PATH")
"""Variables that a login gets; secrets are not among them."""


def start(environ: Mapping[str, str], scratch: Path, uid: int) -> str:
    """Start the server if it can be; return one line that says so, or why not."""
    if not environ.get(KEY_VARIABLE):
        return f"sshd: off, {KEY_VARIABLE} is not set"
    if uid != 0:
        return f"sshd: off, {KEY_VARIABLE} is set but this container runs as user {uid}, and sshd needs 0"
    try:
        SEPARATION.mkdir(mode=0o755, exist_ok=True)
        return _start(environ, Path(mkdtemp(prefix="sshd-", dir=scratch)))
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        return f"sshd: off, {' '.join(str(said).split()) or 'it could not be started'}"


def _start(environ: Mapping[str, str], folder: Path) -> str:
    key = folder / "host_key"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    (folder / "authorized_keys").write_text(f"{environ[KEY_VARIABLE].strip()}\n")
    configuration = folder / "sshd_config"
    configuration.write_text(config(folder, {name: environ[name] for name in SEEN_BY_LOGINS if environ.get(name)}))
    _run(SERVER, "-f", str(configuration))
    said = _run("ssh-keygen", "-l", "-f", f"{key}.pub").split()
    return f"sshd: on, port 22, host key {said[1]}"


def config(folder: Path, environ: Mapping[str, str]) -> str:
    """Return the server's configuration: keys only, all its files in one folder."""
    lines = [
        f"HostKey {folder}/host_key",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        "AuthenticationMethods publickey",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "UsePAM no",
        # The keys lie in scratch, which everybody may write: that the folder is ours alone is what counts.
        "StrictModes no",
        "PidFile none",
        "PrintMotd no",
        "Subsystem sftp internal-sftp",
    ]
    if environ:
        lines.append("SetEnv " + " ".join(f"{name}={_quoted(value)}" for name, value in environ.items()))
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _run(*command: str) -> str:
    """Run a program to its end and return what it said; the key is no argument, so no list of processes shows it."""
    clean = {"PATH": os.defpath + ":/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, env=clean)
    return done.stdout
