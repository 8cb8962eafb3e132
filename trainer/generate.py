"""Continuations sampled from a model: plain sampling by whole forward passes, by all ranks together."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import nn

from trainer.evaluate import Validation
from trainer.ranks import Ranks
from trainer.reporting import Setting
from trainer.requests import Request
from trainwright.spec.training import Train
from trainwright.store.files import write_text
from trainwright.tokens.bundle import Bundle

TEMPERATURE = 0.8
TOP_K = 50
PROMPT_TOKENS = 32


@torch.no_grad()
def continuations(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    vocab_size: int,
    train: Train,
    ranks: Ranks,
    look: Callable[[], Request] = lambda: Request.NONE,
) -> list[list[int]] | Request:
    """Return sampled continuations of prompts of one length; a fixed seed draws the same from the same weights.

    Every rank computes the same draw, because a sharded model's forward needs them all; the first rank's counts.
    A request that comes to any of them in between is returned instead.
    """
    model.eval()
    # Blocks would be compiled anew for lengths that come once.
    eager = partial(torch.compiler.set_stance, "force_eager") if train.compile else nullcontext
    generator = torch.Generator("cpu").manual_seed(0)
    tokens = torch.tensor(list(prompts), dtype=torch.int64)  # B T
    for _ in range(num_tokens):
        with eager():
            logits = _next_logits(model, tokens[:, -train.seq_len_tokens :].to(ranks.device))[:, :vocab_size]
        top, index = logits.topk(min(TOP_K, vocab_size))
        drawn = torch.multinomial(torch.softmax(top / TEMPERATURE, dim=1), 1, generator=generator)
        told = ranks.gather({"chosen": index.gather(1, drawn).tolist(), "asked": int(look())})
        asked = Request(max(one["asked"] for one in told))
        if asked is not Request.NONE:
            model.train()
            return asked
        tokens = torch.cat((tokens, torch.tensor(told[0]["chosen"])), dim=1)
    model.train()
    return [row[len(prompts[0]) :] for row in tokens.tolist()]


def _next_logits(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits of what follows, shape (B, V)."""
    logits: torch.Tensor = model(tokens)
    return logits[:, -1].float().cpu()


def write_samples(setting: Setting, model: nn.Module, validation: Validation, bundle: Bundle, step: int) -> Request:
    """Write continuations of prompts taken evenly from the validation corpus, a JSON object a line, for the report.

    Returns a request that came in between; nothing is written then.
    """
    experiment, ranks = setting.training.experiment, setting.ranks
    train, count, length = experiment.train, experiment.logging.num_samples, experiment.logging.sample_tokens
    total = validation.corpus.manifest.num_tokens
    size = min(PROMPT_TOKENS, total, train.seq_len_tokens)
    starts = [index * (total - size) // max(1, count) for index in range(count)]
    prompts = [validation.corpus.read(start, start + size).tolist() for start in starts]
    drawn = []
    if prompts:
        found = continuations(model, prompts, length, bundle.vocab_size, train, ranks, setting.requests.look)
        if isinstance(found, Request):
            return found
        drawn = found
    rows = [
        {
            "prompt": bundle.decode(prompt),
            "continuation": bundle.decode(more),
            "step": step,
            "temperature": TEMPERATURE,
        }
        for prompt, more in zip(prompts, drawn, strict=True)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    ranks.together(lambda: _write(setting.run.samples, text) if ranks.is_first else None)
    return Request.NONE


def _write(path: Path, text: str) -> None:
    write_text(path, text)
