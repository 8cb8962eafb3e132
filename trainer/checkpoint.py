"""Checkpoints: folders of safetensors whose manifest comes last, loadable on any number of ranks.

    step_00001000/rank_00000.safetensors ...   the pieces that each rank held
    step_00001000/index.json                   tensor -> dtype, shape, and its pieces (file, key, offset, shape)
    step_00001000/train_state.json             step, cursor of the data order, and what must not change on resume
    step_00001000/manifest.json                sizes and sha256 of all of the above, written last
    checkpoint_00001000.done                   for others; this code trusts only a manifest that verifies

A save fills a fresh hidden folder and renames it, so a folder under its final name is whole. Loading verifies every
hash; a damaged checkpoint is refused by name and the one before it is used. No pickle anywhere.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.planner import num_elements, overlap, pieces
from trainer.ranks import Ranks
from trainwright.spec.exits import UserError, describe_os_error
from trainwright.spec.paths import MANIFEST, done_name, step_name
from trainwright.spec.resolved import changes
from trainwright.spec.training import Checkpoint
from trainwright.store.files import FileEntry, fsync_file, fsync_folder, naming, read_json, set_aside
from trainwright.store.files import sha256_file, verify_entry, write_json, write_text

INDEX = "index.json"
TRAIN_STATE = "train_state.json"
HIDDEN = ".saving"
DELETING = ".deleting-step_"
"""With the step: a checkpoint on its way out, which no longer counts as one."""
FORMAT = "checkpoint 1"

log = logging.getLogger("trainer")


@dataclass(frozen=True, slots=True)
class TrainState:
    """Everything but tensors that a resumed run needs."""

    step: int
    """Finished updates."""
    cursor: int
    """The next global sample of the data order."""
    corpus: str
    """Identity of the training shards."""
    fixed: Mapping[str, Any]
    """The experiment's fields that decide what is learned."""
    train_seconds: float = 0.0
    """Time spent in the loop over all attempts."""
    refused: tuple[int, ...] = ()
    """Cursors of the batches whose update was refused; they are passed over."""
    rollbacks: int = 0
    """Returns to an earlier checkpoint so far."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A checkpoint folder under its final name; whether it is sound is for `verify` to say."""

    step: int
    folder: Path


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return every tensor of the training state by name: `model/NAME`, `optimizer/NAME/STATE`."""
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        state[f"model/{name}"] = parameter
        assert not optimizer.state or parameter in optimizer.state, f"{name} is not the parameter that is optimized"
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            state[f"optimizer/{name}/{key}"] = value
    return state


def committed(folder: Path) -> list[Committed]:
    """Return the checkpoints below a folder, newest first."""
    found = [Committed(int(path.name[5:]), path) for path in folder.glob("step_" + "[0-9]" * 8) if path.is_dir()]
    return sorted(found, key=lambda each: -each.step)


def save(folder: Path, state: Mapping[str, Tensor], train_state: TrainState, ranks: Ranks) -> float:
    """Write and commit a checkpoint by all ranks; return the seconds it took. The caller has checked the lease.

    Where one rank cannot write, all raise the same `OSError`, and what was written of this checkpoint is gone.
    """
    started = time.monotonic()
    final, hidden = folder / step_name(train_state.step), folder / HIDDEN
    try:
        ranks.together(lambda: _make_empty(hidden) if ranks.is_first else None)
        shares = ranks.together(lambda: _write_pieces(hidden, state, ranks.rank))
        ranks.together(lambda: _commit(hidden, final, shares, state, train_state) if ranks.is_first else None)
    except OSError:
        if ranks.is_first:
            # On a full disk this makes the room that the end records need.
            rmtree(hidden, ignore_errors=True)
        raise
    return time.monotonic() - started


def _make_empty(folder: Path) -> None:
    if folder.exists():
        rmtree(folder)
    folder.mkdir(parents=True)


def _write_pieces(folder: Path, state: Mapping[str, Tensor], rank: int) -> dict[str, Any]:
    """Write this rank's pieces to one file; return the file's entry and what each piece is."""
    held = [piece for name, tensor in state.items() for piece in pieces(name, tensor)]
    path = folder / f"rank_{rank:05d}.safetensors"
    # A view would write its whole storage, and devices differ: contiguous copies in host memory.
    try:
        save_file({piece.name: piece.local.cpu().contiguous().clone() for piece in held}, path)
    except SafetensorError as error:
        # The library reports what the system said, such as a full disk, as an error of its own.
        code = re.search(r"\(os error (\d+)\)", str(error))
        known = (int(code[1]), os.strerror(int(code[1]))) if code else (errno.EIO, str(error))
        raise OSError(*known, str(path)) from None
    with naming(path):
        fsync_file(path)
    described = {piece.name: {"offset": piece.offset, "shape": tuple(piece.local.shape)} for piece in held}
    return {"file": asdict(FileEntry(path.name, path.stat().st_size, sha256_file(path))), "pieces": described}


def _commit(
    hidden: Path,
    final: Path,
    shares: list[dict[str, Any]],
    state: Mapping[str, Tensor],
    train_state: TrainState,
) -> None:
    index = {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "pieces": [{"file": s["file"]["path"], **s["pieces"][name]} for s in shares if name in s["pieces"]],
        }
        for name, tensor in state.items()
    }
    files = [FileEntry(**share["file"]) for share in shares]
    files.append(write_json(hidden / INDEX, index))
    files.append(write_json(hidden / TRAIN_STATE, asdict(train_state)))
    body = {"format": FORMAT, "step": train_state.step, "files": [asdict(entry) for entry in files]}
    write_json(hidden / MANIFEST, body)
    if final.exists():
        # Only a damaged folder can stand here, since a sound one of this step would have been resumed from.
        set_aside(final)
    hidden.rename(final)
    fsync_folder(final.parent)
    mark(Committed(train_state.step, final))


def mark(checkpoint: Committed) -> None:
    """Write the marker of a whole checkpoint unless it is there: a kill or a full disk may have come before it."""
    marker = checkpoint.folder.parent / done_name(checkpoint.step)
    try:
        if not marker.exists():
            write_text(marker, "")
    except OSError as error:
        log.warning("checkpoint: %s is saved, but cannot be marked: %s", checkpoint.folder.name, error)


def verify(checkpoint: Committed, ranks: Ranks) -> str | None:
    """Return what is wrong with a checkpoint, or None; the ranks share the hashing and agree."""
    try:
        manifest = read_json(checkpoint.folder / MANIFEST)
        entries = [FileEntry(**entry) for entry in manifest["files"]]
        said, expected = (manifest["format"], manifest["step"]), (FORMAT, checkpoint.step)
        wrong = None if said == expected else f"{checkpoint.folder / MANIFEST}: is of {said}, not of {expected}"
    except (FileNotFoundError, NotADirectoryError):
        entries, wrong = [], f"{checkpoint.folder / MANIFEST}: missing"
    except (UserError, KeyError, TypeError) as error:
        entries, wrong = [], f"{checkpoint.folder / MANIFEST}: damaged ({error})"
    for entry in entries[ranks.rank :: ranks.size]:
        wrong = wrong or verify_entry(checkpoint.folder, entry, hashes=True)
    return next((found for found in ranks.gather(wrong) if found), None)


def read_train_state(checkpoint: Committed) -> TrainState:
    """Return the train state of a verified checkpoint."""
    value = read_json(checkpoint.folder / TRAIN_STATE)
    return TrainState(**{**value, "refused": tuple(value["refused"])})


def check_same_run(checkpoint: Committed, stored: TrainState, now: TrainState) -> None:
    """Raise `UserError` naming every fixed field, and the corpus, in which a checkpoint is of another run."""
    found = [str(change) for change in changes(stored.fixed, now.fixed)]
    if stored.corpus != now.corpus:
        found.append(f"training shards: were {stored.corpus[:12]}, are now {now.corpus[:12]}")
    if found:
        way = "give the run another name, or undo the change"
        raise UserError(f"{checkpoint.folder}: the checkpoint is of another run: {'; '.join(found)}; {way}")


@torch.no_grad()
def load(checkpoint: Committed, state: Mapping[str, Tensor]) -> None:
    """Fill this rank's tensors from a verified checkpoint, whatever number of ranks wrote it.

    Tensors that the checkpoint has beyond `state` are left alone: weights can be taken without the optimizer.
    """
    index = read_json(checkpoint.folder / INDEX)
    for name, tensor in state.items():
        stored = index.get(name)
        if stored is None or tuple(stored["shape"]) != tuple(tensor.shape):
            shape = "is not in it" if stored is None else f"has the shape {stored['shape']} in it"
            raise UserError(f"{checkpoint.folder}: is of another model: {name} {shape}, not {list(tensor.shape)}")
        for wanted in pieces(name, tensor, every_rank=True):
            filled = 0
            for piece in stored["pieces"]:
                box = tuple(piece["offset"]), tuple(piece["shape"])
                meeting = overlap(*box, wanted.offset, tuple(wanted.local.shape))
                if meeting is not None:
                    values = _read(checkpoint.folder / Path(piece["file"]).name, name, meeting.read)
                    wanted.local[meeting.write].copy_(values)
                    filled += values.numel()
            if filled != num_elements(tuple(wanted.local.shape)):
                raise UserError(f"{checkpoint.folder / INDEX}: the pieces of {name} do not cover it")


def _read(path: Path, name: str, box: tuple[slice, ...]) -> Tensor:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            values: Tensor = file.get_slice(name)[box] if box else file.get_tensor(name)
    except SafetensorError as error:
        raise UserError(f"{path}: not readable as safetensors ({error})") from None
    return values


def retained(steps: list[int], policy: Checkpoint) -> set[int]:
    """Return which of the committed steps the policy keeps; the newest is always among them.

    A step that is a multiple of `eval.every_steps` counts for study and is kept by `eval.keep`; of the others the
    newest `dump.keep` stay.
    """
    newest_first = sorted(steps, reverse=True)
    every = policy.eval.every_steps
    study = [step for step in newest_first if every and step % every == 0]
    resume = [step for step in newest_first if step not in study]
    keep = set(newest_first[:1]) | set(resume[: policy.dump.keep]) | set(study[: policy.eval.keep])
    return keep | set(newest_first[: policy.dump.keep])


def prune(folder: Path, policy: Checkpoint) -> None:
    """Delete the checkpoints that the policy lets go: out of sight first, so that a kill leaves no half folder.

    A marker goes after its folder, which may refuse to go. What a kill or a full disk leaves is cleared away next time.
    """
    found = committed(folder)
    keep = retained([each.step for each in found], policy)
    for each in found:
        if each.step not in keep:
            try:
                each.folder.rename(folder / f"{DELETING}{each.step:08d}")
            except OSError as error:
                # An old checkpoint that stays costs space; a run that dies for it would cost more.
                log.warning("checkpoint: %s cannot be deleted: %s", each.folder.name, describe_os_error(error))
    stay = {each.step for each in committed(folder)}
    for doomed in folder.glob(DELETING + "[0-9]" * 8):
        step = int(doomed.name.removeprefix(DELETING))
        try:
            if step not in stay:
                (folder / done_name(step)).unlink(missing_ok=True)
            rmtree(doomed)
        except OSError as error:
            log.warning("checkpoint: %s cannot be deleted: %s", doomed.name, describe_os_error(error))
