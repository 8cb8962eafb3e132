"""`trainwright runpod VERB ...`: pods, clusters and volumes at RunPod."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.engine import Engine
from infra.parsers import word_parser
from infra.runpod import cloud, reap, shell_init, ssh, tables
from infra.runpod.answers import Pod
from infra.runpod.client import Client, LostAnswerError, connect
from infra.runpod.create import candidates, create, prepared
from infra.runpod.launched import say
from infra.runpod.logs import follow as followed, lines
from infra.runpod.manifest import Manifest, read_manifest
from infra.runpod.storage import monthly_dollars, needs
from infra.runpod.volumes import warn_if_small
from infra.runpod.wait import UnfitError, create_and_wait, refuse_without_gpus
from trainwright.spec.exits import Exit, UserError

Connect = Callable[[], Client]
PAGE = """\
usage: trainwright runpod VERB ...

  create pod -f FILE [--wait]          make the pod (or cluster) of a manifest; wait for boot's first sign of life
  create volume NAME --size GB --data-center ID [--for EXP]
  get pods | pod ID | gpus | volumes   what is there; --json on each
  logs ID [-f]                         a pod's log, through dropped connections
  exec [-it] ID -- COMMAND             a command in a pod
  port-forward ID 6006:6006            a port of a pod on this machine
  stop ID | start ID | delete [pod] ID
  reap [--delete]                      pods of ours that are paid for nothing
  shell-init [--shim DIR]              makes the bare word `runpod` answer to all this

ID is a pod's id or name. The key: RUNPOD_API_KEY, else what `runpod config` wrote."""


def runpod(argv: Sequence[str], connect: Connect = connect) -> int:
    """Run one verb; return its exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(PAGE)
        return Exit.OK if argv else Exit.REFUSED
    if argv[0] not in VERBS:
        raise UserError(f"{argv[0]}: no such verb; `trainwright runpod --help` lists them")
    return VERBS[argv[0]](argv[1:], connect)


def _create(argv: Sequence[str], connect: Connect) -> int:
    parser = word_parser("runpod create", "Make a pod, a cluster or a network volume.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="pod|cluster|volume")
    for kind in ("pod", "cluster"):
        one = kinds.add_parser(kind, help="from a manifest")
        one.add_argument("-f", "--file", type=Path, required=True, metavar="FILE", help="such as infra/pod.yaml")
        one.add_argument("--wait", action="store_true", help="until boot gives a sign of life")
    volume = kinds.add_parser("volume", help="a network volume")
    volume.add_argument("name", help="its name")
    volume.add_argument("--size", type=int, required=True, metavar="GB", help="10 to 4096; it can grow later")
    volume.add_argument("--data-center", required=True, metavar="ID", help="such as US-KS-2; pods with it run there")
    volume.add_argument("--for", dest="experiment", metavar="EXP", help="say whether this experiment fits")
    arguments = parser.parse_args(argv)
    return _create_volume(arguments, connect) if arguments.kind == "volume" else _create_pod(arguments, connect)


def _create_pod(arguments: argparse.Namespace, connect: Connect) -> int:
    manifest = read_manifest(arguments.file)
    client = connect()
    warn_if_small(client, manifest, say)
    if arguments.wait:
        made = create_and_wait(client, manifest, say)
    else:
        whole = prepared(client, manifest)
        made = create(client, whole, iter(candidates(client, whole)), say)
    print(made.id)
    if not made.is_cluster:
        say(f"follow it with `trainwright runpod logs {made.id} -f`; {_end(manifest)}")
    return Exit.OK


def _end(manifest: Manifest) -> str:
    fates = {"delete": "deletes itself", "stop": "stops itself", "keep": "stays, and is billed, until you delete it"}
    return f"it {fates[manifest.ours.when_done]} when its run is complete"


def _create_volume(arguments: argparse.Namespace, connect: Connect) -> int:
    from trainwright.spec.load import find_experiment, load_experiment

    size, center = arguments.size, arguments.data_center
    if not 10 <= size <= 4096:
        raise UserError(f"--size {size}: a network volume has 10 to 4096 GB")
    if center != center.upper():
        raise UserError(f"--data-center {center}: ids are in capitals: {center.upper()}")
    if arguments.experiment:
        wanted = needs(load_experiment(find_experiment(arguments.experiment)).experiment)
        short = " DOES NOT FIT; take more, or keep fewer checkpoints" if wanted.total > size else " fits"
        say(f"{arguments.experiment} needs {wanted}:{short}")
    client = connect()
    if any(one.name == arguments.name for one in cloud.volumes(client)):
        raise UserError(f"{arguments.name}: a network volume of this name is there already; choose another name")
    body = {"name": arguments.name, "size": size, "dataCenter": center}
    try:
        identity = str(client.ask("POST", "/v2/network-volumes", body)["id"])
    except LostAnswerError:
        client.clock.wait(cloud.POLL_S)
        identity = cloud.find_volume(client, arguments.name).id
    print(identity)
    say(f"{arguments.name}: {size} GB in {center}, ${monthly_dollars(size):.2f} a month until you delete it")
    return Exit.OK


def _get(argv: Sequence[str], connect: Connect) -> int:
    parser = word_parser("runpod get", "List pods, volumes or the catalogue of GPUs, or show one pod.")
    parser.add_argument("kind", choices=("pods", "pod", "gpus", "volumes"))
    parser.add_argument("name", nargs="?", metavar="ID", help="of `get pod`")
    parser.add_argument("--cloud", choices=("SECURE", "COMMUNITY"), default="SECURE", help="of `get gpus`")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="of `get gpus`: GPUs in one pod")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments = parser.parse_args(argv)
    if (arguments.kind == "pod") != (arguments.name is not None):
        raise UserError("runpod get: `get pod` takes one id or name, the others take none")
    client = connect()
    now = client.clock.now()
    match arguments.kind:
        case "pods":
            found = cloud.pods(client)
            document: Any = [tables.facts(one, now) for one in found]
            text = tables.pods(found, now)
        case "pod":
            one = cloud.find_pod(client, arguments.name)
            document, text = tables.facts(one, now), tables.pod(one, now)
        case "volumes":
            stores = cloud.volumes(client)
            document, text = [asdict(one) for one in stores], tables.volumes(stores)
        case _:
            tier, count = arguments.cloud, arguments.count
            offers = cloud.offers(client, product="POD", cloud=tier, count=count)
            document, text = [asdict(one) for one in offers], tables.gpus(offers, arguments.count)
    print(json.dumps(document, indent=1) if arguments.json else text)
    return Exit.OK


def _logs(argv: Sequence[str], connect: Connect) -> int:
    parser = word_parser("runpod logs", "Print a pod's log.")
    parser.add_argument("name", metavar="ID", help="a pod's id or name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the pod stops")
    parser.add_argument("--tail", type=int, default=100, metavar="N", help="lines of the past, at most 5000")
    arguments = parser.parse_args(argv)
    client = connect()
    found = cloud.find_pod(client, arguments.name)
    read = followed if arguments.follow else lines
    for line in read(client, found.id, tail=min(max(arguments.tail, 0), 5000)):
        print(line.text if line.source != "system" else f"runpod: {line.text}", flush=True)
    if arguments.follow:
        last = cloud.pod(client, found.id)
        say(f"{found.id}: {'is gone; its run is on the volume' if last is None else f'is {last.status}'}")
    return Exit.OK


def _exec(argv: Sequence[str], connect: Connect) -> int:
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    options, command = words[:end], words[end + 1 :]
    parser = word_parser("runpod exec", "Run a command in a pod over its own SSH server; without one, a shell.")
    parser.add_argument("-i", action="store_true", help="pass this terminal's input on (always done)")
    parser.add_argument("-t", action="store_true", help="give the command a terminal")
    parser.add_argument("name", metavar="ID", help="a pod's id or name; `-- COMMAND ...` follows")
    if len([word for word in options if not word.startswith("-")]) > 1:
        raise UserError("runpod exec: write -- before the command: runpod exec -it ID -- COMMAND")
    arguments = parser.parse_args(options)
    client = connect()
    pod = cloud.find_pod(client, arguments.name)
    return ssh.run_inside(client, Engine(), pod, command, terminal=arguments.t or not command)


def _port_forward(argv: Sequence[str], connect: Connect) -> int:
    parser = word_parser("runpod port-forward", "Let ports of this machine lead into a pod, until interrupted.")
    parser.add_argument("name", metavar="ID", help="a pod's id or name")
    parser.add_argument("ports", nargs="+", metavar="LOCAL:REMOTE", help="such as 6006:6006 for TensorBoard")
    arguments = parser.parse_args(argv)
    pairs = ssh.ports_of(arguments.ports)
    client = connect()
    pod = cloud.find_pod(client, arguments.name)
    for here, there in pairs:
        say(f"http://127.0.0.1:{here} -> {pod.id}:{there}; Ctrl-C ends it")
    return ssh.forward(client, Engine(), pod, pairs)


def _named(verb: str, text: str, argv: Sequence[str], client: Connect) -> tuple[Client, str]:
    parser = word_parser(f"runpod {verb}", text)
    parser.add_argument("names", nargs="+", metavar="ID", help="a pod's id or name; the word pod may stand before it")
    names = parser.parse_args(argv).names
    names = names[1:] if len(names) > 1 and names[0] in ("pod", "cluster") else names
    if len(names) != 1:
        raise UserError(f"runpod {verb}: takes one pod, and {len(names)} are given")
    return client(), names[0]


def _stop(argv: Sequence[str], connect: Connect) -> int:
    client, name = _named("stop", "Stop a pod: its GPUs are given back, its volume stays.", argv, connect)
    pod = cloud.find_pod(client, name)
    cloud.act(client, pod, "stop")
    print(f"{pod.id}: stopped; the run goes on from its newest checkpoint after `start`, or in a new pod")
    return Exit.OK


def _start(argv: Sequence[str], connect: Connect) -> int:
    client, name = _named("start", "Start a stopped pod on its host.", argv, connect)
    pod = cloud.find_pod(client, name)
    cloud.act(client, pod, "start")
    for _ in range(50):
        client.clock.wait(cloud.POLL_S)
        now = cloud.pod(client, pod.id)
        if now is None or now.status == "ERROR":
            raise UserError(f"{pod.id}: does not start again; delete it and create it anew, its run is on the volume")
        if now.status == "RUNNING" and now.gpu_use is not None:
            try:
                refuse_without_gpus(now)
            except UnfitError as error:
                raise _stopped_again(client, pod, str(error)) from None
            print(f"{pod.id}: running")
            return Exit.OK
    raise _stopped_again(client, pod, f"{pod.id}: did not come up in five minutes")


def _stopped_again(client: Client, pod: Pod, why: str) -> UserError:
    """Stop a pod that is of no use on this host, and return what to say."""
    cloud.act(client, pod, "stop")
    way = f"`trainwright runpod delete {pod.id}`, then create it anew: its run is kept"
    return UserError(f"{why}; it is stopped again; {way}")


def _delete(argv: Sequence[str], connect: Connect) -> int:
    client, name = _named("delete", "Delete a pod or a cluster; its volume stays.", argv, connect)
    for cluster in cloud.clusters(client):
        if name in (cluster["id"], cluster["name"]):
            cloud.delete_cluster(client, cluster["id"])
            print(f"{cluster['id']}: deleted with its nodes; its volume stays")
            return Exit.OK
    pod = cloud.find_pod(client, name)
    cloud.delete_pod(client, pod.id)
    print(f"{pod.id}: deleted; its volume stays")
    return Exit.OK


def _reap(argv: Sequence[str], connect: Connect) -> int:
    parser = word_parser("runpod reap", "Find pods of ours that outlived their run, and what they cost.")
    parser.add_argument("--delete", action="store_true", help="delete them")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments = parser.parse_args(argv)
    client = connect()
    found = reap.outlived(client)
    if arguments.delete:
        for one in found:
            reap.remove(client, one)
    now = client.clock.now()
    if arguments.json:
        print(json.dumps([{**tables.facts(one.pod, now), "why": one.why} for one in found], indent=1))
    else:
        print(tables.idle(found, now, deleted=arguments.delete) if found else "nothing to reap")
    return Exit.OK


def _shell_init(argv: Sequence[str], connect: Connect) -> int:
    del connect
    parser = word_parser("runpod shell-init", "Make the bare word `runpod` answer to the verbs here.")
    parser.add_argument("--shim", type=Path, metavar="DIR", help="write a script into a folder of your PATH instead")
    arguments = parser.parse_args(argv)
    if arguments.shim is None:
        sys.stdout.write(shell_init.function_text())
        return Exit.OK
    print(f"{shell_init.write_shim(arguments.shim)}: written; {arguments.shim} must come first in PATH")
    return Exit.OK


VERBS: dict[str, Callable[[Sequence[str], Connect], int]] = {
    "create": _create,
    "get": _get,
    "logs": _logs,
    "exec": _exec,
    "port-forward": _port_forward,
    "stop": _stop,
    "start": _start,
    "delete": _delete,
    "reap": _reap,
    "shell-init": _shell_init,
}
