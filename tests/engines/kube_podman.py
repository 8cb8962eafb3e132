"""A cluster of one machine: podman plays the pods of Jobs, as they are rendered."""

from dataclasses import dataclass, field
import json
from pathlib import Path
import subprocess
import time

import yaml

from machine import ROOT


@dataclass
class Podman:
    """podman, which runs the pods of Jobs; a named volume stands for the claim."""

    folder: Path
    command: list[str]
    environ: dict[str, str]
    played: list[Path] = field(default_factory=list)

    def podman(self, *words: str | Path, limit_s: float = 240) -> "subprocess.CompletedProcess[str]":
        command = [*self.command, *map(str, words)]
        return subprocess.run(
            command, env=self.environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit_s
        )

    def start(self, *manifests: Path) -> str:
        """Play the Job of a manifest, with what it reads; return its container."""
        file = self.folder / f"play-{manifests[-1].name}"
        file.write_text("---\n".join(path.read_text() for path in manifests))
        for old in self.played:
            self.podman("kube", "down", old)
        self.played = [file]
        done = self.podman("kube", "play", "--network", "host", file)
        assert done.returncode == 0, done.stderr
        job = yaml.safe_load(manifests[-1].read_text())
        return f"{job['metadata']['name']}-pod-{job['spec']['template']['spec']['containers'][0]['name']}"

    def end(self, name: str) -> tuple[int, str]:
        """Wait for a container's end; return its exit code and all that it said."""
        code = int(self.podman("wait", name).stdout.strip())
        logs = self.podman("logs", name)
        return code, logs.stdout + logs.stderr

    @property
    def volume(self) -> Path:
        return self.folder / "store/volumes/trainwright/_data"

    def until_step(self, step: int, name: str) -> None:
        """Wait until training has finished a step."""
        metrics, deadline = self.volume / "runs/demo/metrics.jsonl", time.monotonic() + 120
        while not metrics.is_file() or sum('"loss"' in line for line in metrics.read_text().splitlines()) < step:
            assert time.monotonic() < deadline, self.podman("logs", name).stderr
            time.sleep(0.1)


def losses(volume: Path) -> list[int]:
    rows = [json.loads(line) for line in (volume / "runs/demo/metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "loss" in row]
