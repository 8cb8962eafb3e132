import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from infra.boot.nodes import Node, this_node, wait_for_name
from trainwright.spec.exits import Interrupted, MissingError, UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.paths import RunFolder

ONE = Resources(ranks_per_node=2)
FOUR = Resources(nodes=4, ranks_per_node=8)
PET = {"PET_NODE_RANK": "2", "PET_MASTER_ADDR": "node-0.run", "PET_MASTER_PORT": "4321", "PET_NNODES": "4"}
RUN = RunFolder(Path("/runs/a run"))


def test_a_single_machine_needs_no_words_at_all() -> None:
    assert this_node(ONE, None, None, {}) == Node(0, 1, 2, None)


def test_a_single_machine_does_not_care_where_node_0_answers() -> None:
    assert this_node(ONE, 0, "10.0.0.1:29500", {}) == Node(0, 1, 2, None)


def test_flags_say_which_node_this_is() -> None:
    assert this_node(FOUR, 3, "10.0.0.1:29500", {}) == Node(3, 4, 8, ("10.0.0.1", 29500))


def test_torchruns_own_variables_say_the_same() -> None:
    assert this_node(FOUR, None, None, PET) == Node(2, 4, 8, ("node-0.run", 4321))


def test_flags_are_stronger_than_variables() -> None:
    assert this_node(FOUR, 1, "other:1", PET) == Node(1, 4, 8, ("other", 1))


def test_the_port_of_the_variables_has_torchruns_default() -> None:
    given_address = {"PET_MASTER_ADDR": "host"}
    assert this_node(FOUR, 0, None, given_address).master == ("host", 29500)
    assert this_node(FOUR, 0, None, {**given_address, "PET_MASTER_PORT": ""}).master == ("host", 29500)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert this_node(FOUR, 0, "[fe80::1]:29500", {}).master == ("fe80::1", 29500)


@pytest.mark.parametrize(
    ("resources", "rank", "master", "environ", "words"),
    [
        (FOUR, 4, "a:1", {}, ["--node-rank 4", "0 to 3", "resources.nodes"]),
        (FOUR, -1, "a:1", {}, ["--node-rank -1", "0 to 3"]),
        (ONE, 1, None, {}, ["--node-rank 1", "0 to 0"]),
        (FOUR, None, None, {**PET, "PET_NODE_RANK": "9"}, ["9", "0 to 3"]),
        (FOUR, None, None, {**PET, "PET_NODE_RANK": "two"}, ["PET_NODE_RANK=two", "whole number"]),
        (FOUR, None, None, {**PET, "PET_NNODES": "2"}, ["PET_NNODES=2", "resources.nodes=4", "agree"]),
        (ONE, None, None, {"PET_NNODES": "4"}, ["PET_NNODES=4", "resources.nodes=1", "agree"]),
        (FOUR, 0, None, {}, ["resources.nodes=4", "--master HOST:PORT"]),
        (FOUR, 0, "host", {}, ["--master host", "HOST:PORT"]),
        (FOUR, 0, "host:0", {}, ["--master host:0", "HOST:PORT"]),
        (FOUR, 0, "host:65536", {}, ["--master host:65536", "HOST:PORT"]),
        (FOUR, 0, "host:port", {}, ["--master host:port", "HOST:PORT"]),
        (FOUR, 0, ":29500", {}, ["--master :29500", "HOST:PORT"]),
        (FOUR, None, None, {**PET, "PET_MASTER_PORT": "http"}, ["node-0.run:http", "HOST:PORT"]),
    ],
)
def test_what_cannot_be_is_refused_with_value_and_way_out(
    resources: Resources, rank: int | None, master: str | None, environ: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(UserError) as found:
        this_node(resources, rank, master, environ)
    assert all(word in str(found.value) for word in words), str(found.value)


@settings(max_examples=40)
@given(st.integers(1, 65535), st.from_regex(r"[a-z0-9][a-z0-9.-]{0,30}", fullmatch=True))
def test_every_port_and_host_name_is_understood(port: int, host: str) -> None:
    assert this_node(FOUR, 0, f"{host}:{port}", {}).master == (host, port)


def test_the_first_node_is_the_one_of_rank_0() -> None:
    nodes = [this_node(FOUR, rank, "a:1", {}) for rank in range(4)]
    assert [node.is_first for node in nodes] == [True, False, False, False]


def test_the_nodes_share_out_all_ranks() -> None:
    ranks = [rank for node in range(4) for rank in this_node(FOUR, node, "a:1", {}).ranks]
    assert ranks == list(range(32))


def test_the_agent_of_one_machine_finds_a_port_of_its_own() -> None:
    assert this_node(ONE, None, None, {}).agent_command(RUN) == [
        *(sys.executable, "-m", "trainer.agent"),
        *("--standalone", "--local-addr", "127.0.0.1"),
        *("--nproc-per-node", "2", "--max-restarts", "0"),
        *("-m", "trainer", "/runs/a run/training.yaml"),
    ]


def test_the_agents_of_several_machines_meet_where_node_0_answers() -> None:
    assert this_node(FOUR, 3, "10.0.0.1:29500", {}).agent_command(RUN) == [
        *(sys.executable, "-m", "trainer.agent"),
        *("--nnodes", "4", "--node-rank", "3", "--master-addr", "10.0.0.1", "--master-port", "29500"),
        *("--nproc-per-node", "8", "--max-restarts", "0"),
        *("-m", "trainer", "/runs/a run/training.yaml"),
    ]


def test_a_name_that_dns_learns_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [OSError(-2, "Name or service not known"), OSError(-3, "Temporary failure"), None]

    def look(host: str, port: None) -> list[object]:
        assert (host, port) == ("first.set", None)
        if (answer := answers.pop(0)) is not None:
            raise answer
        return []

    heeded: list[int] = []
    monkeypatch.setattr("infra.boot.nodes.socket.getaddrinfo", look)
    monkeypatch.setattr("infra.boot.nodes.LOOK_S", 0.01)
    wait_for_name("first.set", 5, lambda: heeded.append(1))
    assert (answers, heeded) == ([], [1, 1])


def test_the_wait_for_a_name_has_a_limit_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.boot.nodes.LOOK_S", 0.05)
    with pytest.raises(MissingError, match=r"^nowhere.invalid: no such name after 0 s \(.*resources.wait_minutes"):
        wait_for_name("nowhere.invalid", 0.1, lambda: None)


def test_an_interrupt_ends_the_wait_for_a_name() -> None:
    def heed() -> None:
        raise Interrupted("while waiting")

    with pytest.raises(Interrupted):
        wait_for_name("nowhere.invalid", 60, heed)


def test_a_name_that_is_known_costs_no_wait() -> None:
    wait_for_name("localhost", 0, lambda: pytest.fail("waited"))
