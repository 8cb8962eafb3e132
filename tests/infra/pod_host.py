"""The host of a fake pod: runs its container's command as a process here, and again when it ends, as RunPod does."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import shlex
import signal
import subprocess
import sys
import threading
import time

from runpod_state import FakePod, FakeRunPod
from tiny_boot import clean_environment

Command = Callable[[list[str], dict[str, str]], list[str]]


def python_here(words: list[str], environ: dict[str, str]) -> list[str]:
    """Return what the image's entry point comes to, in this Python."""
    del environ
    return [sys.executable, "-m", "infra.boot.entry", *words]


class Host:
    """Runs the pods of a fake RunPod; each is a loop of processes, and all of them are gone after `close`."""

    def __init__(
        self, fake: FakeRunPod, root: Path, command: Command = python_here, root_inside: str | None = None
    ) -> None:
        self.fake, self.root, self.command = fake, root, command
        self.root_inside = root_inside or str(root)
        self.starts = 0
        self.container: subprocess.Popen[str] | None = None
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        fake.on_create = self._place

    def interrupt(self) -> None:
        """Take the container away as a host does: SIGTERM."""
        assert self.container is not None
        self.container.send_signal(signal.SIGTERM)

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _place(self, pod: FakePod) -> None:
        thread = threading.Thread(target=self._run, args=(pod,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _lives(self, pod: FakePod) -> bool:
        with self.fake.lock:
            return not self._over.is_set() and pod.id in self.fake.pods and not pod.end

    def _run(self, pod: FakePod) -> None:
        while self._lives(pod) and self.fake.status(pod) != "RUNNING":
            time.sleep(0.02)
        while self._lives(pod):
            self.starts += 1
            self._one_container(pod)
            with self.fake.lock:
                self.fake.restart(pod)

    def _one_container(self, pod: FakePod) -> None:
        words, environ = arguments(pod.body["args"]), self._environ(pod)
        self.container = subprocess.Popen(
            self.command(words, environ),
            env={**clean_environment(), **environ},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        reader = threading.Thread(target=self._read, args=(pod, self.container), daemon=True)
        reader.start()
        while self.container.poll() is None:
            if not self._lives(pod):
                self.container.send_signal(signal.SIGTERM)
                try:
                    self.container.wait(15)
                except subprocess.TimeoutExpired:
                    self.container.kill()
            time.sleep(0.02)
        reader.join()
        if self.container.stdout is not None:
            self.container.stdout.close()

    def _read(self, pod: FakePod, container: subprocess.Popen[str]) -> None:
        assert container.stdout is not None
        for line in container.stdout:
            with self.fake.lock:
                self.fake.say(pod, line.rstrip("\n"))

    def _environ(self, pod: FakePod) -> dict[str, str]:
        own = {"RUNPOD_POD_ID": pod.id, "RUNPOD_API_KEY": "scoped", "RUNPOD_API_URL": self.fake.url}
        place = {"TRAINWRIGHT_ROOT": self.root_inside, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        return {**pod.body.get("env", {}), **own, **place, "HOME": os.environ.get("HOME", "/")}


def arguments(text: str) -> list[str]:
    """Read `args` as RunPod does: the JSON form, else words."""
    try:
        return [str(word) for word in json.loads(text)["cmd"]]
    except (ValueError, TypeError):
        return shlex.split(text)
