"""A cluster through kubectl: the one place where it is called, and what it answers, as data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.engine import Answer, Engine
from infra.job import Job
from infra.kubernetes.names import MAX_NAME
from infra.launches import Launch
from infra.shell import command_line
from trainwright.spec.exits import MissingError, UserError

JOB, JOB_SET = "job", "jobset"


class NotAllowedError(MissingError):
    """The cluster does not let this user look; what was asked stays unknown."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One namespace of one cluster."""

    engine: Engine
    words: tuple[str, ...]
    """kubectl's own: --namespace and --context."""

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None when it is not there."""
        answer = self._asked("get", kind, name, "--ignore-not-found", "--output=json")
        found: dict[str, Any] | None = json.loads(answer.out) if answer.out.strip() else None
        return found

    def keys(self, secret: str) -> list[str] | None:
        """Return the names in a secret, without their values; None when it is not there."""
        names = "--output=go-template={{range $key, $_ := .data}}{{$key}} {{end}}"
        # `kubectl get` says nothing both of a secret that is not there and of one that is empty.
        answer = self._asked("get", "secret", secret, "--ignore-not-found", "--output=name")
        return self._asked("get", "secret", secret, names).out.split() if answer.out.strip() else None

    def pods(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        """Return the pods with some labels, the oldest first."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        answer = self._asked("get", "pods", f"--selector={selector}", "--output=json")
        found: list[dict[str, Any]] = json.loads(answer.out)["items"] if answer.out.strip() else []
        return sorted(found, key=lambda pod: pod["metadata"].get("creationTimestamp", ""))

    def apply(self, path: Path) -> None:
        """Make what a file says."""
        self._asked("apply", f"--filename={path}")

    def delete(self, *words: str) -> None:
        """Take things away, and wait until nothing of them is left."""
        self._asked("delete", *words, "--ignore-not-found", "--cascade=foreground")

    def run_in(self, pod: str, container: str, *words: str) -> Answer:
        """Run a command in a pod."""
        return self.engine.ask(*self.command("exec", pod, f"--container={container}", "--", *words))

    def command(self, *words: str) -> tuple[str, ...]:
        """Return a command of kubectl for this namespace."""
        return ("kubectl", *self.words, *words)

    def line(self, *words: str) -> str:
        """Return a command for a person to copy."""
        return command_line(self.command(*words))

    def _asked(self, *words: str) -> Answer:
        answer = self.engine.ask(*self.command(*words))
        if answer.code == 0:
            return answer
        said = (answer.err or answer.out).strip() or "it said nothing"
        if "Forbidden" in said or "forbidden" in said:
            raise NotAllowedError(f"kubectl {words[0]} {words[1]}: {said}")
        kind = UserError if words[0] == "apply" else MissingError
        raise kind(f"kubectl {words[0]}: {said}")


def cluster_of(job: Job, engine: Engine) -> Cluster:
    """Return where a job goes."""
    settings = job.targets.kubernetes
    context = (f"--context={settings.context}",) if settings.context else ()
    return Cluster(engine, (f"--namespace={settings.namespace}", *context))


def identity(kind: str, name: str, cluster: Cluster) -> str:
    """Return a launch's name in its cluster: kubectl's own words for it."""
    return " ".join((f"{kind}/{name}", *cluster.words))


def found_again(launch: Launch, engine: Engine) -> tuple[Cluster, str, str]:
    """Return the cluster of a launch, and the kind and name of what runs there."""
    first, *words = launch.id.split(" ")
    kind, _, name = first.partition("/")
    if kind not in (JOB, JOB_SET) or not 0 < len(name) <= MAX_NAME:
        raise UserError(f"{launch.record}: {launch.id} is nothing that was launched on Kubernetes")
    return Cluster(engine, tuple(words)), kind, name
