"""Waits until a pod is of use: its container runs, its GPUs are there, and boot has given a sign of life."""

from collections.abc import Iterator

from infra.runpod import cloud
from infra.runpod.answers import Pod
from infra.runpod.client import Client, LostAnswerError
from infra.runpod.create import Candidate, Made, Say, candidates, create, discard, first_pod, prepared
from infra.runpod.logs import lines
from infra.runpod.manifest import Manifest
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.runpod import ENDED, HEARTBEAT

PULL_S = 20 * 60.0
"""A host that has not pulled the image by then is taken for broken."""
START_S = 10 * 60.0
"""From a running container to boot's first sign of life."""
UNFIT_HOSTS = 3


class UnfitError(MissingError):
    """The host that was given does not work; another may."""


def create_and_wait(client: Client, manifest: Manifest, say: Say) -> Made:
    """Create, wait, and go to another host when one does not work; what does not work is deleted."""
    whole = prepared(client, manifest)
    ways: Iterator[Candidate] = iter(candidates(client, whole))
    for tried in range(1, UNFIT_HOSTS + 1):
        made = create(client, whole, ways, say)
        try:
            wait_until_up(client, made, say)
        except UnfitError as error:
            _give_back(client, made, error)
            say(f"{error}; deleted")
            if tried == UNFIT_HOSTS:
                raise MissingError(f"{manifest.name}: {tried} hosts in a row did not work; try again later") from None
            # Another host of the same type is as good as another type.
            ways = iter([made.candidate, *ways])
        except (UserError, KeyboardInterrupt):
            say(f"{made.id}: goes on without us; `trainwright runpod delete {made.id}` ends it")
            raise
        else:
            return made
    raise AssertionError


def _give_back(client: Client, made: Made, why: UnfitError) -> None:
    try:
        discard(client, made)
    except UserError as error:
        told = f"*** {made.id} IS STILL BILLED ***, and cannot be deleted now ({error})"
        raise MissingError(f"{why}; {told}; `trainwright runpod delete {made.id}` ends it") from None


def wait_until_up(client: Client, made: Made, say: Say) -> Pod:
    """Return the pod once boot has given a sign of life; raise `UnfitError` when its host will not do."""
    found = _until_running(client, made, say)
    deadline = client.clock.now() + START_S
    while client.clock.now() < deadline:
        if _lives(client, found):
            say(f"{found.id}: boot gives signs of life")
            return found
        client.clock.wait(cloud.POLL_S)
        again = first_pod(client, made)
        if again is None or not again.live:
            state = "gone" if again is None else again.status
            raise UserError(f"{found.id}: is {state} before boot gave a sign of life; see `trainwright runpod logs`")
    raise UnfitError(f"{found.id}: RUNNING for {START_S / 60:.0f} minutes without a sign of life of boot")


def _until_running(client: Client, made: Made, say: Say) -> Pod:
    said, deadline = "", client.clock.now() + PULL_S
    while client.clock.now() < deadline:
        found = first_pod(client, made)
        if found is None and not made.is_cluster:
            raise UserError(f"{made.id}: was deleted by somebody else")
        if found is not None:
            if found.status != said:
                said = found.status
                say(f"{found.id}: {said}")
            if found.status == "ERROR":
                raise UnfitError(f"{found.id}: RunPod reports an error of this host")
            if not found.live:
                raise UserError(f"{found.id}: is {found.status}; see `trainwright runpod logs {found.id}`")
            if found.status == "RUNNING" and found.gpu_use is not None:
                refuse_without_gpus(found)
                return found
        client.clock.wait(cloud.POLL_S)
    raise UnfitError(f"{made.id}: {said or 'not placed'} for {PULL_S / 60:.0f} minutes; this host seems broken")


def refuse_without_gpus(found: Pod) -> None:
    """Raise `UnfitError` for a pod that was started without the GPUs that it was rented for."""
    there = min(found.num_gpus, len(found.gpu_use or ()))
    if found.gpu and there < max(1, found.num_gpus):
        raise UnfitError(f"{found.id}: was started with {there} GPUs, its host has rented the others out")


def _lives(client: Client, found: Pod) -> bool:
    try:
        return any(HEARTBEAT in one.text or ENDED in one.text for one in lines(client, found.id, tail=1000))
    except LostAnswerError:
        return False
