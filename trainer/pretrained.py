"""Weights from a Hugging Face folder: `config.json`, and safetensors in one file or in several with an index.

A checkpoint from elsewhere is untrusted: only safetensors are read, names stay inside the folder, and every tensor must
be one that the layout has, of its shape and a plain floating type. Nothing is left at its initial value.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.layouts import from_layout, to_layout
from trainer.planner import pieces
from trainer.ranks import Ranks
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.layouts import HubConfig, check_fits, read_config
from trainwright.spec.paths import RunFolder
from trainwright.spec.shape import Shape
from trainwright.store.files import read_json
from trainwright.store.weights import CONFIG, MAX_CONFIG_BYTES, PREFIX, download_weights, weights_folder
from trainwright.tokens.bundle import Bundle
from trainwright.tokens.tokenizer_json import spelled_vocabulary

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
MAX_TOKENIZER_BYTES = 64 << 20
FLOATS = ("F64", "F32", "BF16", "F16")
NOT_WEIGHTS = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
"""Ends of names of buffers that older checkpoints hold; they are recomputed."""

log = logging.getLogger("trainer")


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A checkpoint folder whose config is known and whose tensors have been found."""

    path: Path
    config: HubConfig
    files: Mapping[str, Path]
    """Tensor -> the file that holds it."""


def is_hub_folder(folder: Path) -> bool:
    """Return whether a folder is a Hugging Face checkpoint rather than a run."""
    return (folder / CONFIG).is_file()


def initial_weights(given: str, run: RunFolder, assets: Path, ranks: Ranks, bundle: Bundle) -> Path:
    """Return the folder of the weights that a run starts from; the first rank brings a model of the hub here.

    A run that has a checkpoint of its own needs no others.
    """
    wrong = None
    if ranks.is_first and given.startswith(PREFIX) and not any(run.checkpoints.glob("step_*")):
        try:
            download_weights(given, assets)
        except UserError as error:
            wrong = str(error)
    if wrong := ranks.from_first(wrong):
        raise MissingError(wrong)
    folder = weights_folder(given, run.path.parent, assets)
    if is_hub_folder(folder):
        check_tokenizer(folder, bundle)
    return folder


def check_tokenizer(folder: Path, bundle: Bundle) -> None:
    """Raise `UserError` when the checkpoint's own tokenizer gives tokens other numbers than the run's.

    A checkpoint without a `tokenizer.json` is taken at its number of rows.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return
    model = read_json(path, MAX_TOKENIZER_BYTES).get("model")
    theirs = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(theirs, dict):
        return
    for token, number in spelled_vocabulary(bundle).items():
        if theirs.get(token) != number:
            found = f"{token!r} is {theirs.get(token, 'no token')} there and {number} in the run's tokenizer"
            way = f"set tokenizer.path={path}"
            raise UserError(f"train.init_from: {folder}: its vocabulary is another: {found}; {way}")


def open_hub_folder(folder: Path) -> HubFolder:
    """Return what a checkpoint folder holds; raise `UserError` naming the file or key that is not known here."""
    config = read_config(read_json(folder / CONFIG, MAX_CONFIG_BYTES), str(folder / CONFIG))
    if (folder / INDEX).is_file():
        listed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict):
            raise UserError(f"{folder / INDEX}: has no weight_map; download the checkpoint again")
        return HubFolder(folder, config, {name: _inside(folder, file) for name, file in listed.items()})
    if not (folder / WHOLE).is_file():
        found = sorted(path.name for path in folder.glob("*.bin"))
        other = f"; {found[0]} is pickle, which is never loaded" if found else ""
        raise UserError(f"{folder}: holds neither {WHOLE} nor {INDEX}{other}; convert it to safetensors")
    with _opened(folder / WHOLE) as file:
        return HubFolder(folder, config, dict.fromkeys(file.keys(), folder / WHOLE))


def _inside(folder: Path, file: Any) -> Path:
    if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
        raise UserError(f"{folder / INDEX}: names {str(file)[:60]!r}, which is no safetensors file beside it")
    return folder / file


@torch.no_grad()
def take_pretrained(folder: Path, model: nn.Module) -> None:
    """Fill a model's parameters, sharded or whole, from a checkpoint folder; one block is in memory at a time."""
    shape: Shape = model.shape  # type: ignore[assignment]
    rows: int = model.embedding.weight.shape[0]  # type: ignore[union-attr, assignment, index]
    hub = open_hub_folder(folder)
    check_fits(hub.config, folder, shape, rows, model.seq_len_tokens)  # type: ignore[arg-type]
    parameters = dict(model.named_parameters())
    expected = dict(_expected(hub, shape, parameters))
    _check_names(hub, set(expected), tied=shape.tied)
    with ExitStack() as stack:
        files: dict[Path, Any] = {}
        for block in by_block(parameters):
            stored = {
                name: _read(hub, name, expected[name][1], files, stack)
                for name in expected
                if expected[name][0] == block
            }
            wanted = of_block(parameters, block)
            try:
                weights = from_layout(hub.config.model_type, shape, stored, wanted, block)
            except UserError as error:
                raise UserError(f"{folder}: {error}") from None
            for name, parameter in wanted.items():
                for piece in pieces(name, parameter, every_rank=True):
                    box = tuple(slice(at, at + n) for at, n in zip(piece.offset, piece.local.shape, strict=True))
                    piece.local.copy_(weights[name][box])
    log.info("weights: initial weights are those of %s (%s)", folder, hub.config.model_type)


def by_block(names: Mapping[str, Any]) -> list[int | None]:
    """Return the blocks that parameter names mention, and None for what is outside of them."""
    blocks = {int(name.split(".")[1]) for name in names if name.startswith("blocks.")}
    return [None, *sorted(blocks)]


def of_block(parameters: Mapping[str, Tensor], block: int | None) -> dict[str, Tensor]:
    """Return the parameters of a block under the names that they have in it, or those outside of the blocks."""
    if block is None:
        return {name: each for name, each in parameters.items() if not name.startswith("blocks.")}
    prefix = f"blocks.{block}."
    return {name.removeprefix(prefix): each for name, each in parameters.items() if name.startswith(prefix)}


def _expected(
    hub: HubFolder, shape: Shape, parameters: Mapping[str, Tensor]
) -> Iterator[tuple[str, tuple[int | None, torch.Size]]]:
    """Yield every tensor that the layout stores for this model: its name, block and shape."""
    for block in by_block(parameters):
        blank = {name: torch.empty(each.shape, device="meta") for name, each in of_block(parameters, block).items()}
        for name, tensor in to_layout(hub.config.model_type, shape, blank, block).items():
            yield name, (block, tensor.shape)


def _check_names(hub: HubFolder, expected: set[str], *, tied: bool) -> None:
    # A tied checkpoint may repeat the embedding as its output; it is the same tensor.
    known = expected | ({"lm_head.weight"} if tied else set())
    more = sorted(name for name in set(hub.files) - known if not name.endswith(NOT_WEIGHTS))
    less = sorted(expected - set(hub.files))
    if more or less:
        what = f"has no {less[0]}" if less else f"holds {more[0]}, which the layout {hub.config.model_type} has not"
        also = f" (and {len(more) + len(less) - 1} more like it)" if len(more) + len(less) > 1 else ""
        raise UserError(f"{hub.path}: {what}{also}; it is of a layout that is not known here, or not whole")


def _read(hub: HubFolder, name: str, shape: torch.Size, files: dict[Path, Any], stack: ExitStack) -> Tensor:
    path = hub.files[name]
    if path not in files:
        files[path] = stack.enter_context(_opened(path))
    try:
        view = files[path].get_slice(name)
        found = tuple(view.get_shape())
        if found != tuple(shape):
            raise UserError(f"{path}: {name} has the shape {list(found)}, not {list(shape)} as config.json says")
        if view.get_dtype() not in FLOATS:
            raise UserError(f"{path}: {name} is {view.get_dtype()}; quantised weights are not read")
        values: Tensor = files[path].get_tensor(name)
    except SafetensorError as error:
        raise UserError(f"{path}: {name} cannot be read ({error}); download the checkpoint again") from None
    if not torch.isfinite(values).all():
        raise UserError(f"{path}: {name} holds values that are no numbers; download the checkpoint again")
    return values


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}); download the checkpoint again") from None
