"""Which node this is, where node 0 answers, and the torchrun arguments that follow."""

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infra.rooms import room_command
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.paths import RunFolder

NODE_RANK_VARIABLE = "PET_NODE_RANK"
MASTER_ADDR_VARIABLE = "PET_MASTER_ADDR"
MASTER_PORT_VARIABLE = "PET_MASTER_PORT"
NUM_NODES_VARIABLE = "PET_NNODES"
LOOK_S = 1.0

log = logging.getLogger("boot")


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of a run."""

    rank: int
    num_nodes: int
    ranks_per_node: int
    master: tuple[str, int] | None

    @property
    def is_first(self) -> bool:
        """Return whether this node prepares the run and holds its lease."""
        return self.rank == 0

    @property
    def ranks(self) -> range:
        """Return the ranks that run here."""
        return range(self.rank * self.ranks_per_node, (self.rank + 1) * self.ranks_per_node)

    def agent_command(self, run: RunFolder) -> list[str]:
        """Return the command that starts this node's ranks."""
        if self.master is None:
            # One machine: the agent picks a free port of its own, so two runs never meet.
            where = ["--standalone", "--local-addr", "127.0.0.1"]
        else:
            host, port = self.master
            where = ["--nnodes", str(self.num_nodes), "--node-rank", str(self.rank)]
            where += ["--master-addr", host, "--master-port", str(port)]
        local = ["--nproc-per-node", str(self.ranks_per_node), "--max-restarts", "0"]
        return room_command("trainer.agent", *where, *local, "-m", "trainer", str(run.training_yaml))


def this_node(
    resources: Resources, node_rank: int | None, master: str | None, environ: Mapping[str, str] = os.environ
) -> Node:
    """Return this node from the command line, else from torchrun's own variables (`PET_*`)."""
    rank = node_rank if node_rank is not None else _whole(environ, NODE_RANK_VARIABLE, 0)
    nodes = _whole(environ, NUM_NODES_VARIABLE, resources.nodes)
    if nodes != resources.nodes:
        raise UserError(f"{NUM_NODES_VARIABLE}={nodes}: but resources.nodes={resources.nodes}; make them agree")
    if not 0 <= rank < resources.nodes:
        raise UserError(f"--node-rank {rank}: outside 0 to {resources.nodes - 1}, because resources.nodes is set so")
    if resources.nodes == 1:
        return Node(0, 1, resources.ranks_per_node, None)
    if master is None and environ.get(MASTER_ADDR_VARIABLE):
        master = f"{environ[MASTER_ADDR_VARIABLE]}:{environ.get(MASTER_PORT_VARIABLE) or 29500}"
    if master is None:
        way = "give --master HOST:PORT, the same on every node"
        raise UserError(f"resources.nodes={resources.nodes}: the nodes do not know where node 0 answers; {way}")
    found = re.fullmatch(r"\[?([^\]]+?)\]?:(\d{1,5})", master)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise UserError(f"--master {master}: is not HOST:PORT, such as 10.0.0.1:29500")
    return Node(rank, resources.nodes, resources.ranks_per_node, (found[1], int(found[2])))


def wait_for_name(host: str, limit_s: float, heed: Callable[[], None]) -> None:
    """Return once a host's name leads somewhere: a cluster's DNS learns the names of pods some seconds after them.

    `heed` is called all the while, and may raise. Raises `MissingError` when the name is still unknown at the limit.
    """
    begun, why = time.monotonic(), _unknown(host)
    if why is not None:
        log.info("waiting: for the name %s; at most %.0f s (%s)", host, limit_s, why)
    while why is not None:
        if time.monotonic() - begun >= limit_s:
            way = "is node 0 there, and does DNS know it? resources.wait_minutes is the limit"
            raise MissingError(f"{host}: no such name after {limit_s:.0f} s ({why}); {way}")
        heed()
        time.sleep(LOOK_S)
        why = _unknown(host)


def _unknown(host: str) -> str | None:
    """Return why a name leads nowhere, or None when it leads somewhere."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _whole(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    if not text.isdigit():
        raise UserError(f"{name}={text}: is not a whole number")
    return int(text)
