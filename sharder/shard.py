"""The shard stage: a source's documents become text shards for training and validation, once.

    open the source -> compare with what is there -> plan the pieces -> write their slices -> publish -> `complete`

A run killed anywhere goes on at the file and row where its last slice ended, and ends with the same bytes, whatever the
number of processes and parts. The lease in the training folder is for publishing; each piece has one of its own.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sharder.adopt import adopt
from sharder.begin import (
    already_there,
    demand_reuse,
    existing_manifests,
    placed_by_hand,
    planned,
    temporary_folder,
    work_folder,
)
from sharder.ingest import ingest
from sharder.plan import LEASE, Part, forget_work
from sharder.progress import Pause, Progress, facts_line
from sharder.publish import Ledger, Manifests, Settled, complete, publish, settle
from sharder.slices import DiskReserveError, Job, Limit
from sharder.sources.corpus import CorpusError
from sharder.sources.jsonl import refuse_bad
from trainwright.spec.exits import Interrupted, MissingError, UserError
from trainwright.spec.paths import MANIFEST, SPLITS, Places, Split
from trainwright.store.files import remove_temporaries
from trainwright.store.lease import LeaseHeldError, acquire, is_live
from trainwright.store.text_shards import Drops, TextManifest

ALONE = Part()
DISK_RESERVE = "disk reserve"
PUBLISH_EVERY_S = 5.0
"""Not after each piece: a manifest may list very many shards."""

Facts = dict[str, object]
__all__ = ["LEASE", "Facts", "read_text", "run"]

log = logging.getLogger(__name__)


def run(places: Places, part: Part = ALONE) -> Facts:
    """Make the text shards of an experiment, or one part of the work, unless they are there; return facts."""
    existing = existing_manifests(places)
    if (done := already_there(places, existing)) is not None:
        _tidy(places, done)
        return _facts("already", done)
    if part.of > 1 and places.experiment.data.shard and not placed_by_hand(places, existing):
        return _run_part(places, part, existing)
    folder = places.text("train")
    with acquire(folder / LEASE, f"sharding {places.experiment.data_name}", wait=_say):
        # Another process may have finished while we came to hold the lease.
        existing = existing_manifests(places)
        if (done := already_there(places, existing)) is not None:
            return _facts("already", done)
        for split in SPLITS:
            places.text(split).mkdir(parents=True, exist_ok=True)
            remove_temporaries(places.text(split))
        if placed_by_hand(places, existing):
            demand_reuse(places)
            return _facts("adopted", {split: adopt(places.text(split), split) for split in reversed(SPLITS)})
        if not places.experiment.data.shard:
            raise UserError(f"{folder}: no complete text shards here, and data.shard is false; {_ways_to_shards()}")
        return _write(places, existing)


def read_text(places: Places) -> Manifests:
    """Return the manifests of both splits for a later stage; raise `UserError` when they are not complete.

    Shards of a reading that was stopped are a usable corpus, when the experiment says that these are the ones
    (`data.shard=false`) or had asked for a disk reserve.
    """
    found: Manifests = {split: TextManifest.read(places.text(split)) for split in SPLITS}
    for split, manifest in found.items():
        usable = manifest.ended == DISK_RESERVE or (manifest.ended and not places.experiment.data.shard)
        if not manifest.complete and not (usable and manifest.shards):
            raise UserError(f"{places.text(split) / MANIFEST}: not complete; run the shard stage to its end first")
    return found


def _limit(places: Places) -> Limit:
    source = places.experiment.data.source
    return Limit(source.take, source.max_bytes)


def _run_part(places: Places, part: Part, existing: Manifests) -> Facts:
    """Work on the pieces of one part; the part that finds all of them done publishes."""
    job, _ = planned(places, existing, shared=True)
    ledger, limit = Ledger(job), _limit(places)
    mine = sum(part.owns(piece) for piece in job.plan.pieces)
    facts: Facts = {"stage": "shard", "state": "part", "part": f"{part.number}/{part.of}", "pieces": mine}
    try:
        progress = ingest(ledger, part, limit, places.experiment.data.workers, lambda: None)
        if _published_by_another(places) or not _is_finished(ledger, limit):
            return facts | _speed(progress)
        with acquire(places.text("train") / LEASE, f"publishing {places.experiment.data_name}", wait=_say):
            return _publish_all(places, progress)
    except DiskReserveError:
        raise _no_room(places, "free some, or run without --part to use what is there") from None
    except (OSError, UserError):
        # Another part may have published what a limit leaves of the work, and taken the work away from under us; or it
        # saw, as we did, that all is done, and publishes now.
        if _published_by_another(places):
            return facts
        if ledger.job.work.exists() and _is_finished(ledger, limit) and is_live(places.text("train") / LEASE):
            return facts
        raise


def _published_by_another(places: Places) -> bool:
    """Return whether the corpus is complete by now; if so, take away what we wrote after its work had gone."""
    done = already_there(places, existing_manifests(places))
    if done is not None:
        _tidy(places, done)
    return done is not None


def _publish_all(places: Places, progress: Progress) -> Facts:
    existing = existing_manifests(places)
    if (done := already_there(places, existing)) is not None:
        return _facts("already", done)
    for split in SPLITS:
        places.text(split).mkdir(parents=True, exist_ok=True)
        remove_temporaries(places.text(split))
    job, begun = planned(places, existing, shared=True)
    done = _finish(places, job, begun, settle(Ledger(job), _limit(places)))
    return _facts("written", done) | _speed(progress)


def _is_finished(ledger: Ledger, limit: Limit) -> bool:
    """Return whether every piece that counts is done; changes nothing."""
    for piece in ledger.job.plan.pieces:
        left = ledger.left(limit, piece)
        slices = ledger.slices(piece)
        if left.refusal(1, 1) is None and not (slices and slices[-1].last):
            return False
    return True


def _write(places: Places, existing: Manifests) -> Facts:
    """Do all the work alone, publishing as it goes; the lease is held."""
    job, begun = planned(places, existing, shared=False)
    ledger, limit, data = Ledger(job), _limit(places), places.experiment.data
    folders = {split: places.text(split) for split in SPLITS}

    pause = Pause(PUBLISH_EVERY_S)

    def so_far(*, whole: bool = False) -> None:
        if job.plan.num_buckets or not (whole or pause.is_over()):
            return
        begun.update(publish(job, folders, begun, settle(ledger, limit), whole=whole))
        pause.again()

    try:
        progress = ingest(ledger, ALONE, limit, data.workers, so_far)
        done = _finish(places, job, begun, settle(ledger, limit))
    except DiskReserveError:
        so_far(whole=True)
        stopped = _stopped(folders, begun, DISK_RESERVE)
        if not all(begun[split].shards for split in SPLITS):
            raise _no_room(places, "free some, since nothing could be written yet") from None
        return stopped
    except (KeyboardInterrupt, Interrupted) as request:
        with suppress(Interrupted):
            # Where the last slice has to be cut to a limit first, what was published before is enough.
            so_far(whole=True)
        log.info("%s", facts_line(_stopped(folders, begun, f"interrupted by {request}")))
        raise
    return _facts("written", done) | _speed(progress)


def _no_room(places: Places, way: str) -> MissingError:
    reserve = f"data.disk_reserve_gib={places.experiment.data.disk_reserve_gib}"
    return MissingError(f"{work_folder(places)}: its disk has less free space than {reserve}; {way}")


def _stopped(folders: Mapping[Split, Path], begun: Manifests, why: str) -> Facts:
    """Say in the manifests that what is listed is usable, and why it is not all; return what that is."""
    stopped: Manifests = {}
    for split in SPLITS:
        # What was published last is known to the disk alone, when it was published half.
        found = TextManifest.read(folders[split]) if (folders[split] / MANIFEST).exists() else begun[split]
        stopped[split] = found if found.complete else replace(found, ended=why)
        stopped[split].write(folders[split])
    complete = all(manifest.complete for manifest in stopped.values())
    return _facts("stopped", stopped) | {"complete": str(complete).lower(), "why": why.replace(" ", "_")}


def _finish(places: Places, job: Job, begun: Manifests, settled: Settled) -> Manifests:
    """Publish all slices, verify every shard, and let the work go; take everything back when the corpus is unusable."""
    folders = {split: places.text(split) for split in SPLITS}
    try:
        _refuse_unusable(places, settled)
    except CorpusError:
        _take_back(folders, begun)
        forget_work(job.work)
        raise
    done = complete(folders, publish(job, folders, begun, settled, whole=True), settled.cut)
    for folder in _not_needed(places):
        forget_work(folder)
    return done


def _refuse_unusable(places: Places, settled: Settled) -> None:
    slices = [one for _, one in settled.slices]
    first_bad = next((one.first_bad for one in slices if one.first_bad), "")
    refuse_bad(places.experiment.data.source, settled.drops, sum(one.rows for one in slices), first_bad)
    for split in SPLITS:
        if not any(split in one.shards for one in slices):
            raise CorpusError(_no_documents(places, split, sum(one.documents for one in slices)))


def _take_back(folders: Mapping[Split, Path], begun: Manifests) -> None:
    for split in SPLITS:
        replace(begun[split], shards=()).write(folders[split])
        for shard in begun[split].shards:
            (folders[split] / shard.path).unlink(missing_ok=True)
        (folders[split] / MANIFEST).unlink(missing_ok=True)


def _tidy(places: Places, done: Manifests) -> None:
    """Remove the work files that an earlier run of a complete corpus left, when the hash of every shard still holds."""
    if not (_not_needed(places) and all(manifest.complete for manifest in done.values())):
        return
    # Whoever holds the lease tidies.
    with suppress(LeaseHeldError), acquire(places.text("train") / LEASE, f"tidying {places.experiment.data_name}"):
        for split, manifest in done.items():
            manifest.verify(places.text(split), hashes=True)
        for folder in _not_needed(places):
            forget_work(folder)


def _not_needed(places: Places) -> list[Path]:
    """Return the folders that a complete corpus needs no more: those beside the shards, and others when asked to."""
    data, work, temporary = places.experiment.data, work_folder(places), temporary_folder(places)
    gone = [temporary, *([work] if data.work is None or data.remove_work_files else [])]
    return [folder for folder in gone if folder.exists()]


def _speed(progress: Progress) -> Facts:
    return {"seconds": f"{progress.seconds:.1f}", "mb_per_s": f"{progress.mb_per_s:.1f}"}


def _no_documents(places: Places, split: Split, total: int) -> str:
    data = places.experiment.data
    if data.validation is not None:
        field, value = ("data.path", data.path) if split == "train" else ("data.validation", data.validation)
        return f"{field}={value}: not one document in it; give files that hold text"
    if not total:
        where = f"data.path={data.path}" if data.path is not None else f"data.source.kind={data.source.kind}"
        return f"{where}: not one document in it; give files that hold text"
    what = "validation" if split == "val" else "training"
    way = "change the fraction, or give a separate corpus in data.validation"
    return f"data.validation_fraction={data.validation_fraction}: of {total} documents none fell to {what}; {way}"


def _facts(state: str, manifests: Manifests) -> Facts:
    facts: Facts = {"stage": "shard", "state": state}
    for split in SPLITS:
        facts[f"{split}_documents"] = manifests[split].num_documents
        facts[f"{split}_shards"] = len(manifests[split].shards)
        facts[f"{split}_mb"] = f"{manifests[split].text_bytes / 1e6:.1f}"
    dropped = sum((Drops(manifest.drops) for manifest in manifests.values()), Drops())
    facts["dropped"] = ",".join(f"{reason.replace(' ', '_')}:{count}" for reason, count in sorted(dropped.items())) or 0
    return facts


def _ways_to_shards() -> str:
    return "set data.shard=true (or RUN_SHARD=1), or place shard files there and set data.reuse_shards=true"


def _say(why: str) -> None:
    log.info("stage=shard waiting: %s", why)
