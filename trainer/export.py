"""`python -m trainer.export RUN -o DIR`: a run's weights as a Hugging Face folder.

    config.json  generation_config.json  tokenizer.json  tokenizer_config.json
    model.safetensors (or several, with an index)

Tensors go from the newest sound checkpoint to the folder one block at a time. The folder is filled under a hidden name
and renamed when it is whole.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer import checkpoint
from trainer.checkpoint import Committed
from trainer.layouts import to_layout
from trainer.models import build_model
from trainer.pretrained import INDEX, WHOLE, by_block, of_block
from trainer.ranks import Ranks
from trainwright.spec.arguments import WordParser
from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, UserError, guarded
from trainwright.spec.layouts import write_config
from trainwright.spec.paths import RunFolder
from trainwright.spec.resolved import read_training
from trainwright.store.files import fsync_file, fsync_folder, write_json
from trainwright.store.weights import CONFIG
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.tokenizer_json import write_tokenizer_json

SHARD_BYTES = 5 << 30
"""Largest file of tensors; a model beyond it gets several and an index."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

log = logging.getLogger("trainer")


def main(argv: Sequence[str] | None = None) -> int:
    """Export a run; return the exit code."""
    parser = WordParser(prog="trainwright export", description="A run's weights as a Hugging Face folder.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's name or folder")
    parser.add_argument("-o", "--output", type=Path, help="the new folder; by default export/ in the run's")
    parser.add_argument("--step", type=int, help="of this checkpoint; by default the newest that verifies")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp32", help="type of the weights; fp32 is exact")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run = RunFolder(arguments.run)
    output = arguments.output or run.export
    export(run, output, DTYPES[arguments.dtype], step=arguments.step)
    return Exit.OK


def export(run: RunFolder, output: Path, dtype: torch.dtype, *, step: int | None = None) -> None:
    """Write the folder; raise `UserError` when there is one already, or no layout or checkpoint for it."""
    if output.exists():
        raise UserError(f"{output}: is there already; give another folder with -o, or remove it")
    if not run.training_yaml.is_file():
        raise UserError(f"{run.path}: is no run (it has no {run.training_yaml.name})")
    training = read_training(run.training_yaml)
    derived, experiment = Derived(training.experiment), training.experiment
    bundle = Bundle.load(training.tokenizer)
    shape, context = experiment.model.shape, experiment.train.seq_len_tokens
    config = write_config(shape, derived.vocab_size, context, bundle.separator)
    found = _newest_sound(run.checkpoints, step)
    hidden = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    hidden.mkdir(parents=True)
    try:
        tensors = _tensors(found, derived, str(config["model_type"]), dtype)
        _write_tensors(hidden, tensors, SHARD_BYTES)
        write_json(hidden / CONFIG, {**config, "torch_dtype": str(dtype).removeprefix("torch.")})
        write_json(hidden / "generation_config.json", _generation(bundle))
        write_tokenizer_json(hidden, bundle, context)
        hidden.rename(output)
    except BaseException:
        rmtree(hidden, ignore_errors=True)
        raise
    fsync_folder(output.parent)
    log.info("export: %s of step %d in %s", config["architectures"][0], found.step, output)


def _generation(bundle: Bundle) -> dict[str, Any]:
    token = bundle.separator
    return {"bos_token_id": token, "eos_token_id": token, "pad_token_id": token, "do_sample": True, "temperature": 1.0}


def _newest_sound(folder: Path, step: int | None) -> Committed:
    ranks = Ranks(torch.device("cpu"), {})
    for each in checkpoint.committed(folder):
        if step is not None and each.step != step:
            continue
        wrong = checkpoint.verify(each, ranks)
        if wrong is None:
            return each
        log.warning("export: %s is refused: %s", each.folder.name, wrong)
    which = "checkpoint that verifies" if step is None else f"sound checkpoint of step {step}"
    raise UserError(f"{folder}: holds no {which}; nothing to export")


def _tensors(found: Committed, derived: Derived, model_type: str, dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors of one block after another, in the layout."""
    experiment = derived.experiment
    with torch.device("meta"):
        model = build_model(experiment.model, derived.vocab_size, experiment.train.seq_len_tokens)
    parameters: Mapping[str, Tensor] = dict(model.named_parameters())
    for block in by_block(parameters):
        prefix = "model/" if block is None else f"model/blocks.{block}."
        weights = {name: torch.empty(each.shape) for name, each in of_block(parameters, block).items()}
        checkpoint.load(found, {f"{prefix}{name}": tensor for name, tensor in weights.items()})
        stored = to_layout(model_type, experiment.model.shape, weights, block)
        yield {name: tensor.to(dtype).contiguous() for name, tensor in stored.items()}


def _write_tensors(folder: Path, parts: Iterator[dict[str, Tensor]], shard_bytes: int) -> None:
    """Write tensors to one file, or to several of at most so many bytes (a block at least) with an index."""
    written: list[dict[str, int]] = []
    held: dict[str, Tensor] = {}
    for part in parts:
        if held and _size(held) + _size(part) > shard_bytes:
            written.append(_write_shard(folder, len(written), held))
            held = {}
        held |= part
    written.append(_write_shard(folder, len(written), held))
    if len(written) == 1:
        _numbered(folder, 0).rename(folder / WHOLE)
        return
    where: dict[str, str] = {}
    for index, names in enumerate(written):
        final = f"model-{index + 1:05d}-of-{len(written):05d}.safetensors"
        _numbered(folder, index).rename(folder / final)
        where |= dict.fromkeys(names, final)
    total = sum(sum(names.values()) for names in written)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _write_shard(folder: Path, index: int, held: dict[str, Tensor]) -> dict[str, int]:
    path = _numbered(folder, index)
    # transformers asks for the framework in which the tensors were written.
    save_file(held, path, metadata={"format": "pt"})
    # The library keeps its files from other users; an export is for them.
    path.chmod(0o644)
    fsync_file(path)
    return {name: each.nbytes for name, each in held.items()}


def _numbered(folder: Path, index: int) -> Path:
    return folder / f"part-{index}.safetensors"


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(each.nbytes for each in tensors.values())


if __name__ == "__main__":
    sys.exit(guarded("trainwright export", main))
