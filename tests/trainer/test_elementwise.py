"""State is made on the first update, counts updates, and holds the arithmetic in fp32."""

import torch
from torch import nn

from trainer.optim.elementwise import Elementwise, decay_after, fresh_state, local


def test_state_of_either_type_is_made_once_and_updated_in_place() -> None:
    seen = []

    def update(p: torch.Tensor, g: torch.Tensor, state: dict[str, torch.Tensor], t: int, group: object) -> None:
        del p, group
        seen.append((t, g.dtype, state["sum"].dtype))
        state["sum"].add_(g)

    for dtype in (torch.float32, torch.bfloat16):
        weight, idle = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        optimizer = Elementwise([{"params": [weight, idle]}], ("sum",), dtype, update)
        for _ in range(2):
            weight.grad = torch.ones(3)
            optimizer.step()
        assert idle not in optimizer.state
        state = optimizer.state[weight]
        assert (state["step"].item(), state["sum"].dtype, state["sum"].tolist()) == (2.0, dtype, [2.0] * 3)
    assert seen == [(1, torch.float32, torch.float32), (2, torch.float32, torch.float32)] * 2


def test_plain_tensors_are_their_own_local_part() -> None:
    tensor = torch.zeros(3)
    assert local(tensor) is tensor
    assert set(fresh_state(tensor, ("a",), torch.float32)) == {"a", "step"}


def test_a_weight_shrinks_by_its_groups_decay() -> None:
    weight = torch.ones(2)
    decay_after(weight, {"lr": 0.5, "omega": 0.0, "weight_decay": 0.1}, 1)
    assert weight.tolist() == [torch.tensor(0.95).item()] * 2
