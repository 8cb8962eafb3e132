"""Ranks tell each other numbers and JSON; alone, a rank tells itself."""

import json
import socket
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch

from tiny_run import clean_environment
from trainer.ranks import Ranks

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)

PROGRAM = """
import json, torch
from trainer.agree import agree
from trainer.ranks import Ranks
from trainer.requests import Request

ranks = Ranks(torch.device("cpu"))
mine = {"rank": ranks.rank, "text": "\\u00e9" * (1000 * ranks.rank)}
gradients = [torch.full((3,), 1.0 + ranks.rank), torch.zeros(0)]
seen = (Request.END, Request.INTERRUPT)[ranks.rank]
agreed = agree(torch.tensor(1.5 + ranks.rank), gradients, seen, save_due=ranks.rank == 0, ranks=ranks)
bad = agree(torch.tensor(float("nan") if ranks.rank else 1.0), gradients, Request.NONE, save_due=False, ranks=ranks)
found = {
    "gathered": ranks.gather(mine),
    "first": ranks.from_first({"from": ranks.rank}),
    "sum": ranks.sum(torch.tensor([ranks.rank, 10])).tolist(),
    "agreed": [agreed.loss_sum, agreed.grad_norm, agreed.request, agreed.save_due],
    "finite": [agreed.finite, bad.finite],
    "is_first": ranks.is_first,
}
ranks.barrier()
ranks.close()
print(json.dumps(found))
"""


@given(JSON)
def test_a_single_rank_gets_back_what_it_gave(one: Ranks, value: object) -> None:
    assert one.gather(value) == [value]
    assert one.from_first(value) == value


def test_a_single_rank_starts_no_group(one: Ranks) -> None:
    values = torch.tensor([1.0, 2.0])
    assert one.sum(values) is values
    assert one.mesh is None
    assert one.is_first
    assert not torch.distributed.is_initialized()
    one.barrier()
    one.close()


@pytest.mark.slow
def test_two_ranks_hear_the_same() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    shared = {**clean_environment(), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env={**shared, "RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    first, second = (json.loads(process.communicate(timeout=60)[0]) for process in processes)
    assert (first.pop("is_first"), second.pop("is_first")) == (True, False)
    assert first == second
    # JSON of very different lengths arrives whole.
    assert first["gathered"] == [{"rank": 0, "text": ""}, {"rank": 1, "text": "\u00e9" * 1000}]
    assert first["first"] == {"from": 0}
    assert first["sum"] == [1, 20]
    loss, norm, request, due = first["agreed"]
    assert (loss, request, due) == (4.0, 2, True)
    assert norm == pytest.approx((3 * 1 + 3 * 4) ** 0.5)
    assert first["finite"] == [True, False]
