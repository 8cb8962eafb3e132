"""Prints torch's own count of a step's peak memory: `python tracked_memory.py RANKS PASSES a.b=c ...`.

No number is computed and no process started: tensors are fake, and so are the other ranks.
"""

import json
from pathlib import Path
import sys
import tempfile
import warnings

import torch
from torch import Tensor
import torch.distributed as dist
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch._subclasses.fake_tensor import FakeTensorMode

from tiny_run import blank_model, tiny_experiment
from trainer import products
from trainer.optim import build_optimizer
from trainer.parallelize import parallelize, set_gradient_sync
from trainwright.spec.derived import Derived

CPU = torch.device("cpu")
# What is counted is what a GPU would hold.
products.WIDENED = False


def tracked(derived: Derived, passes: int) -> dict[str, int]:
    """Return the most bytes by kind, in the second step.

    The optimizer's averages are there then, and DTensor knows what it learns in the first step by running each operator
    on tensors of the whole shape: fake ones, which the tracker would count.
    """
    train, mesh = derived.experiment.train, None
    if derived.ranks > 1:
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", rank=0, world_size=derived.ranks, store=FakeStore())
        mesh = init_device_mesh("cpu", (derived.ranks,), mesh_dim_names=("shard",))
    with FakeTensorMode(allow_non_fake_inputs=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = blank_model(derived)
        model.reset_buffers(CPU)
        model = parallelize(model, train, mesh)
        optimizer = build_optimizer(derived, model)
        tokens = torch.zeros(train.micro_batch, train.seq_len_tokens, dtype=torch.int64)
        tracker = MemTracker()
        one_step(model, optimizer, tokens, passes, tracker)
        tracker.track_external(model, optimizer)
        with tracker:
            one_step(model, optimizer, tokens, passes, tracker)
    peak = tracker.get_tracker_snapshot("peak")[CPU]
    return {str(kind).rpartition(".")[2]: count for kind, count in peak.items()}


def one_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, passes: int, tracker: MemTracker
) -> None:
    for index in range(passes):
        set_gradient_sync(model, sync=index == passes - 1)
        model(tokens, tokens).backward()
        tracker.reset_mod_stats()
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ranks, passes, *overrides = sys.argv[1:]
        batch = int(ranks) * int(passes)
        words = (*overrides, f"resources.ranks_per_node={ranks}")
        micro = tiny_experiment(Path(folder), *overrides, "train.global_batch_sequences=4096").train.micro_batch
        found = Derived(tiny_experiment(Path(folder), *words, f"train.global_batch_sequences={micro * batch}"))
    print(json.dumps(tracked(found, int(passes))))
