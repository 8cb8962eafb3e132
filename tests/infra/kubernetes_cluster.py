"""A cluster as kubectl shows it: objects by kind and name, pods, logs. What controllers do, a test does."""

from collections.abc import Callable
from dataclasses import dataclass, field
import json
from pathlib import Path
import shlex
from typing import Any

import yaml

from infra.engine import Answer, Engine

OK = Answer(0, "", "")
CRD = ("crd", "jobsets.jobset.x-k8s.io")
CLAIM = ("persistentvolumeclaim", "trainwright")


def claim(*modes: str) -> dict[str, Any]:
    return {"kind": "PersistentVolumeClaim", "spec": {"accessModes": list(modes)}}


def ended(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    """Return the status of a Job that has come to its end."""
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


def pod(name: str, phase: str = "Running", *, index: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a pod of the run `small`."""
    run = "small"
    labels = {"app.kubernetes.io/instance": run, "app.kubernetes.io/component": more.pop("component", "train")}
    labels["batch.kubernetes.io/job-name"] = more.pop("job", run)
    notes = {} if index is None else {"batch.kubernetes.io/job-completion-index": index}
    born = more.pop("born", "2026-01-01T00:00:00Z")
    metadata = {"name": name, "uid": name, "labels": labels, "annotations": notes, "creationTimestamp": born}
    return {"metadata": metadata, "status": {"phase": phase, **more}}


@dataclass(frozen=True, slots=True)
class Kubectl(Engine):
    """Answers as kubectl does; `said` holds every command."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=lambda: {CLAIM: claim("ReadWriteOnce")})
    secrets: dict[str, list[str]] = field(default_factory=dict)
    pods: list[dict[str, Any]] = field(default_factory=list)
    logs: str = ""
    forbidden: tuple[str, ...] = ()
    said: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    looked: Callable[["Kubectl"], None] = lambda _: None
    """Called before each look: what happens in the cluster meanwhile."""

    def has(self, program: str) -> bool:
        return program == "kubectl"

    def show(self, *command: str) -> int:
        self.shown.append(shlex.join(command))
        return 0

    def ask(self, *command: str) -> Answer:
        self.said.append(shlex.join(command))
        words = [word for word in command[1:] if not word.startswith(("--namespace=", "--context="))]
        return getattr(self, f"_{words[0]}")(words[1:])

    def _get(self, words: list[str]) -> Answer:
        self.looked(self)
        kind = words[0]
        if kind in self.forbidden:
            return Answer(1, "", f"Error from server (Forbidden): {kind} is forbidden")
        if kind == "pods":
            wanted = dict(pair.split("=") for pair in words[1].removeprefix("--selector=").split(","))
            found = [one for one in self.pods if wanted.items() <= one["metadata"]["labels"].items()]
            return Answer(0, json.dumps({"items": found}), "")
        if kind == "secret":
            keys = self.secrets.get(words[1])
            if "--output=name" in words:
                return Answer(0, "" if keys is None else f"secret/{words[1]}\n", "")
            return Answer(0, "".join(f"{key} " for key in keys or []), "")
        found = self.objects.get((kind, words[1]))
        return Answer(0, json.dumps(found) if found is not None else "", "")

    def _apply(self, words: list[str]) -> Answer:
        path = Path(words[0].removeprefix("--filename="))
        for document in yaml.safe_load_all(path.read_text()):
            key = (document["kind"].lower(), document["metadata"]["name"])
            there = self.objects.get(key)
            if there is not None and key[0] == "job" and there["spec"] != document["spec"]:
                return Answer(1, "", f'The Job "{key[1]}" is invalid: spec.template: field is immutable')
            self.objects[key] = {**document, "status": (there or {}).get("status", {})}
        return OK

    def _delete(self, words: list[str]) -> Answer:
        for word in words:
            if word.startswith("--filename="):
                for document in yaml.safe_load_all(Path(word.removeprefix("--filename=")).read_text()):
                    self.objects.pop((document["kind"].lower(), document["metadata"]["name"]), None)
            elif not word.startswith("-"):
                kind, _, name = word.partition("/")
                self.objects.pop((kind, name), None)
        return OK

    def _logs(self, words: list[str]) -> Answer:
        del words
        return Answer(0, self.logs, "")

    def _exec(self, words: list[str]) -> Answer:
        return Answer(0, f"{words[0]}: saves and ends after its current step\n", "")
