"""A pod's log: server-sent events, taken up again where they broke off, no line twice and none left out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from infra.runpod import cloud
from infra.runpod.client import Client, LostAnswerError, RunpodError

IDLE_S = 30.0
"""A followed log that says nothing for so long is looked at anew: is the pod still there?"""
GONE = 404
BACKLOG_S = 4.0
"""Lines of the past come at once; after so long without one there are no more."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log."""

    id: str
    source: str
    """`container`, or `system` for what RunPod says."""
    text: str


def lines(client: Client, pod_id: str, *, tail: int = 100) -> Iterator[Line]:
    """Yield the newest lines."""
    yield from _events(client, pod_id, {"tail": str(tail)}, {}, BACKLOG_S)


def follow(client: Client, pod_id: str, *, tail: int = 100) -> Iterator[Line]:
    """Yield lines as they come, through dropped connections and restarts of the container, until the pod stops.

    Raises what the first connection raises; later ones are tried again.
    """
    last, at_last = "", list[str]()
    connected = False
    while True:
        query, headers = ({}, {"Last-Event-ID": last}) if last else ({"tail": str(tail)}, {})
        # The server resumes at a time: what came at that very time may come once more.
        known = list(at_last)
        try:
            for line in _events(client, pod_id, query, headers, IDLE_S):
                connected = True
                if line.id == last and known and line.text == known[0]:
                    del known[0]
                    continue
                if line.id != last:
                    last, at_last = line.id, []
                at_last.append(line.text)
                yield line
        except (LostAnswerError, RunpodError) as error:
            # What breaks a log that was followed is looked at below: the pod may be gone.
            if not connected or (isinstance(error, RunpodError) and error.status != GONE):
                raise
        connected = True
        found = cloud.pod(client, pod_id)
        if found is None or not found.live:
            return
        client.clock.wait(cloud.POLL_S)


def _events(
    client: Client, pod_id: str, query: dict[str, str], headers: dict[str, str], idle_s: float
) -> Iterator[Line]:
    """Yield the events of one connection (WHATWG HTML, server-sent events: fields, and a blank line after each)."""
    identity, data = "", list[str]()
    for text in client.stream(f"/v2/pods/{pod_id}/logs", query, headers, idle_s):
        field, _, value = text.partition(":")
        if field == "id":
            identity = value.removeprefix(" ")
        elif field == "data":
            data.append(value.removeprefix(" "))
        elif not text and data:
            yield _line(identity, "\n".join(data))
            data = []


def _line(identity: str, data: str) -> Line:
    try:
        tree = json.loads(data)
        return Line(identity or str(tree["ts"]), str(tree.get("source", "")), str(tree["line"]).rstrip("\n"))
    except (ValueError, KeyError, TypeError):
        return Line(identity, "", data)
