"""Before the work of the shard stage: what is there, whether it may be gone on with, and the plan of the rest."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharder.adopt import foreign_manifest, has_files
from sharder.plan import LEASE, Plan, forget_work, keep_plan, make_plan, read_plan
from sharder.publish import Manifests
from sharder.slices import Job, read_slices
from sharder.sources import SOURCES, Corpus, Request
from sharder.sources.corpus import SourceAbsentError
from trainwright.spec.data import HubSource
from trainwright.spec.exits import UserError
from trainwright.spec.paths import MANIFEST, SPLITS, Places, Split
from trainwright.spec.resolved import changes, flat, plain
from trainwright.store.text_shards import IMPORTED, TextManifest

WORK = ".work"
NOT_INPUTS = ("data.source.max_bad_share", "data.source.download")
"""Settings of a source that decide whether and how its text comes, not what it is."""
GIB, MIB = 1 << 30, 1 << 20

log = logging.getLogger(__name__)


def work_folder(places: Places) -> Path:
    """Return the folder of unfinished work."""
    given = places.experiment.data.work
    return Path(given) / places.experiment.data_name if given else places.text("train") / WORK


def temporary_folder(places: Places) -> Path:
    """Return the folder of downloads."""
    given = places.experiment.data.temporary
    return Path(given) / places.experiment.data_name if given else work_folder(places) / "temporary"


def existing_manifests(places: Places) -> Manifests:
    """Return the manifests of ours that are there; raise `UserError` when another tool's is, unless it is asked for."""
    found: Manifests = {}
    for split in SPLITS:
        folder = places.text(split)
        if foreign_manifest(folder):
            demand_reuse(places)
        elif (folder / MANIFEST).exists():
            found[split] = TextManifest.read(folder)
    return found


def placed_by_hand(places: Places, existing: Manifests) -> bool:
    """Return whether there are files that somebody placed, which a plan of ours would explain."""
    if read_plan(work_folder(places)) is not None:
        return False
    return any(has_files(places.text(split)) and split not in existing for split in SPLITS)


def already_there(places: Places, existing: Manifests) -> Manifests | None:
    """Return the manifests when nothing has to be done; raise `UserError` when other shards are in the way."""
    if len(existing) < len(SPLITS):
        return None
    data = places.experiment.data
    stopped = not data.shard and all((one.complete or one.ended) and one.shards for one in existing.values())
    if not stopped and not all(manifest.complete for manifest in existing.values()):
        return None
    if data.shard and not data.reuse_shards:
        _demand_equal(places, existing, {})
        try:
            earlier = {split: manifest.inputs for split, manifest in existing.items()}
            opened = _open(places, earlier, only_inputs=True)
        except SourceAbsentError as error:
            # The corpus travelled without the files that it was made from; its other inputs are still compared.
            log.info("stage=shard source=absent reason=%r", str(error))
            opened = {}
        _demand_equal(places, existing, opened)
    for split, manifest in existing.items():
        manifest.verify(places.text(split), hashes=False)
    return existing


def planned(places: Places, existing: Manifests, *, shared: bool) -> tuple[Job, Manifests]:
    """Return the work to do and the manifests to go on from; raise `UserError` when other work is in the way."""
    work, data = work_folder(places), places.experiment.data
    plan = read_plan(work)
    begun = [path for path in work.glob("[0-9]*") if read_slices(path) or (path / LEASE).exists()]
    if not shared and bool(plan) != bool(begun):
        # A plan that nobody has begun holds no work: it is made again, whatever it was made for. And slices whose plan
        # is gone may be of any other.
        forget_work(work)
        plan = None
    elif plan is None and begun and (plan := read_plan(work)) is None:
        raise UserError(f"{work}: holds slices and no plan of them; delete that folder")
    kept = {split: manifest for split, manifest in existing.items() if manifest.shards}
    earlier = plan.inputs if plan is not None else {split: manifest.inputs for split, manifest in kept.items()}
    for opened in ({}, _open(places, earlier, only_inputs=plan is not None)):
        _demand_equal(places, kept, opened)
        for split, recorded in plan.inputs.items() if plan is not None else ():
            _demand_same(work, recorded, _inputs(places, split, opened), bool(opened))
    shuffle_bytes = data.memory_mib * MIB // 3 if data.shuffle_documents else 0
    inputs: dict[Split, Mapping[str, Any]] = {split: _inputs(places, split, opened) for split in SPLITS}
    plan = plan if plan is not None else keep_plan(work, make_plan(opened, inputs, shuffle_bytes), shared=shared)
    if shared and plan.inputs != inputs:
        # Another part was first and chose another commit of the data set: the plan holds.
        opened = _open(places, plan.inputs, only_inputs=True)
    job = Job(
        work,
        temporary_folder(places),
        plan,
        opened,
        places.experiment.seed,
        data.validation_fraction if "val" not in opened else 0.0,
        data.documents_per_shard,
        data.compression,
        data.memory_mib * MIB,
        int((data.disk_reserve_gib or 0) * GIB),
    )
    return job, {split: kept.get(split, _begun(plan, split)) for split in SPLITS}


def _open(places: Places, earlier: Mapping[Split, Mapping[str, Any]], *, only_inputs: bool) -> dict[Split, Corpus]:
    """Open what the splits come from: one corpus for both, or one each."""
    data = places.experiment.data
    wanted: dict[Split, tuple[str, str | None, bool]] = {"train": ("data.path", data.path, False)}
    if data.validation is not None:
        wanted["val"] = ("data.validation", data.validation, False)
    elif isinstance(data.source, HubSource) and data.source.place.validation_files is not None:
        wanted["val"] = ("data.source.validation_files", None, True)
    opened: dict[Split, Corpus] = {}
    for split, (field, path, pinned) in wanted.items():
        known = earlier.get(split, {})
        request = Request(data.source, Path(path) if path else None, field, places.hf_cache, known, pinned, only_inputs)
        opened[split] = SOURCES[data.source.kind](request)
    return opened


def _inputs(places: Places, split: Split, opened: Mapping[Split, Corpus]) -> dict[str, Any]:
    """Return everything that decides the shards of a split, by dotted field."""
    experiment = places.experiment
    data = experiment.data
    source = {f"data.source.{key}": value for key, value in flat(plain(experiment)["data"]["source"])}
    inputs = {key: value for key, value in source.items() if key not in NOT_INPUTS}
    inputs["data.documents_per_shard"] = data.documents_per_shard
    # Corpora that were made before these could be chosen do not say them.
    inputs["data.compression"] = data.compression if data.compression != "zstd" else None
    inputs["data.shuffle_documents"] = data.shuffle_documents or None
    separate = data.validation is not None or (
        isinstance(data.source, HubSource) and data.source.place.validation_files is not None
    )
    if not separate or data.shuffle_documents:
        inputs["seed"] = experiment.seed
    if separate:
        inputs["data.validation"] = "a separate corpus"
    else:
        inputs["data.validation_fraction"] = data.validation_fraction
    corpus = opened.get(split, opened.get("train"))
    inputs |= corpus.inputs if corpus else {}
    return {key: value for key, value in inputs.items() if value is not None}


def _begun(plan: Plan, split: Split) -> TextManifest:
    separate = "data.validation" in plan.inputs[split]
    seed = plan.inputs[split].get("seed")
    return TextManifest(split, "separate" if separate else "fraction", seed, plan.inputs[split])


def _demand_equal(places: Places, existing: Manifests, opened: Mapping[Split, Corpus]) -> None:
    for split, manifest in existing.items():
        if manifest.mode in ("adopted", IMPORTED):
            what = "these shards were placed by hand and adopted" if manifest.shards else "its tokens were imported"
            raise UserError(f"{places.text(split)}: {what}; set data.reuse_shards=true to go on using them")
        inputs = _inputs(places, split, opened)
        recorded = {key: value for key, value in manifest.inputs.items() if opened or key in inputs}
        if differing := changes(recorded, inputs):
            found = "; ".join(str(change) for change in differing)
            raise UserError(f"{places.text(split)}: holds shards made from other inputs: {found}; {_ways_out()}")


def _demand_same(work: Path, found: Mapping[str, Any], inputs: Mapping[str, Any], opened: bool) -> None:
    recorded = {key: value for key, value in found.items() if opened or key in inputs}
    if differing := changes(recorded, inputs):
        what = "; ".join(str(change) for change in differing)
        raise UserError(f"{work}: holds unfinished work on other inputs: {what}; {_ways_out()}")


def demand_reuse(places: Places) -> None:
    """Raise `UserError` unless the experiment accepts the files that are there."""
    if not places.experiment.data.reuse_shards:
        folder = next(places.text(split) for split in SPLITS if has_files(places.text(split)))
        way = "set data.reuse_shards=true to adopt them, or choose another data.name"
        raise UserError(f"{folder}: holds files that no manifest of ours lists; {way}")


def _ways_out() -> str:
    return "choose another data.name, run boot --redo shard, or accept them with data.reuse_shards=true"
