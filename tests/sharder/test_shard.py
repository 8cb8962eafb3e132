import json
import os
from pathlib import Path
import random
import signal
import shutil
import time
from typing import NoReturn

import pytest

from made_corpus import (
    digest,
    experiment_file,
    facts,
    jsonl,
    made_documents,
    num_slices,
    places,
    sharder,
    start,
    wait_until,
    write_jsonl,
)
from sharder import shard as stage
from sharder.shard import read_text, run
from sharder.sources.corpus import CorpusError
from trainwright.spec.exits import Interrupted, MissingError, UserError
from trainwright.store.text_shards import TextManifest, read_documents

DOCUMENTS = made_documents(100)


def texts(root: Path, split: str, name: str = "made") -> list[str]:
    folder = root / "datasets" / split / name
    return [text for shard in TextManifest.read(folder).shards for text in read_documents(folder / shard.path)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "corpus" / "a.jsonl", DOCUMENTS)


# --- which document goes where ---------------------------------------------------------------------------------------


def test_every_document_is_in_exactly_one_split_in_its_order(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path, *jsonl(corpus), "data.validation_fraction=0.3", "data.documents_per_shard=7"))
    train, val = texts(tmp_path, "train"), texts(tmp_path, "val")
    assert sorted(train + val) == sorted(DOCUMENTS)
    assert [text for text in DOCUMENTS if text in set(train)] == train
    assert 10 < len(val) < 50


def test_equal_texts_are_never_on_both_sides(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS * 2)
    run(places(tmp_path, *jsonl(corpus), "data.validation_fraction=0.5"))
    assert not set(texts(tmp_path, "train")) & set(texts(tmp_path, "val"))


def test_a_separate_validation_corpus_is_read_by_the_same_source(tmp_path: Path, corpus: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", ["only", "validation"])
    run(places(tmp_path, *jsonl(corpus), f"data.validation={other}"))
    assert texts(tmp_path, "train") == DOCUMENTS
    assert texts(tmp_path, "val") == ["only", "validation"]
    assert TextManifest.read(tmp_path / "datasets/val/made").mode == "separate"


@pytest.mark.parametrize(("fraction", "side"), [(1e-9, "validation"), (0.999999999, "training")])
def test_a_split_without_documents_is_refused_and_nothing_stays(
    tmp_path: Path, corpus: Path, fraction: float, side: str
) -> None:
    with pytest.raises(CorpusError, match=f"of 100 documents none fell to {side}; change the fraction"):
        run(places(tmp_path, *jsonl(corpus), f"data.validation_fraction={fraction}", "data.documents_per_shard=7"))
    assert digest(tmp_path / "datasets") == {}
    # The way out that the sentence names is open at once.
    assert run(places(tmp_path, *jsonl(corpus), "data.validation_fraction=0.3"))["state"] == "written"


def test_a_separate_corpus_without_documents_is_refused(tmp_path: Path, corpus: Path) -> None:
    empty = write_jsonl(tmp_path / "empty.jsonl", [" "])
    with pytest.raises(CorpusError, match=r"data\.validation=.*empty\.jsonl: not one document"):
        run(places(tmp_path, *jsonl(corpus), f"data.validation={empty}"))


def test_too_many_bad_lines_leave_nothing_and_every_drop_is_counted_otherwise(tmp_path: Path, corpus: Path) -> None:
    with corpus.open("a") as file:
        file.write('not json\n{"id": 1}\n{"text": " "}\n')
    overrides = [*jsonl(corpus), "data.documents_per_shard=7", "data.validation_fraction=0.3"]
    with pytest.raises(CorpusError, match="so are 2 of 103 lines"):
        run(places(tmp_path, *overrides))
    assert digest(tmp_path / "datasets") == {}
    written = run(places(tmp_path, *overrides, "data.source.max_bad_share=0.5"))
    assert written["dropped"] == "empty:1,no_text:1,not_JSON:1"
    assert TextManifest.read(tmp_path / "datasets/train/made").drops == {"empty": 1, "no text": 1, "not JSON": 1}
    assert TextManifest.read(tmp_path / "datasets/val/made").drops == {}


# --- done once, and what may change ----------------------------------------------------------------------------------


def test_a_second_run_changes_no_byte(tmp_path: Path, corpus: Path) -> None:
    asked = places(tmp_path, *jsonl(corpus))
    assert run(asked)["state"] == "written"
    before = digest(tmp_path / "datasets")
    assert run(asked)["state"] == "already"
    assert digest(tmp_path / "datasets") == before
    assert not [name for name in before if "lease" in name or name.endswith(".tmp")]


@pytest.mark.parametrize(
    "change",
    [
        "seed=43: seed: was 42, is now 43",
        "data.validation_fraction=0.4: data.validation_fraction: was 0.05, is now 0.4",
        "data.documents_per_shard=8: data.documents_per_shard: was 250000, is now 8",
        "data.source.field=body: data.source.field: was not there, is now body",
    ],
)
def test_other_inputs_are_refused_by_field_with_old_and_new_value(tmp_path: Path, corpus: Path, change: str) -> None:
    override, message = change.split(": ", 1)
    run(places(tmp_path, *jsonl(corpus)))
    with pytest.raises(UserError) as error:
        run(places(tmp_path, *jsonl(corpus), override))
    for part in (message, "another data.name", "boot --redo shard", "data.reuse_shards=true"):
        assert part in str(error.value)
    assert run(places(tmp_path, *jsonl(corpus), override, "data.reuse_shards=true"))["state"] == "already"


def test_a_corpus_that_grew_is_refused_and_one_that_moved_is_not(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path, *jsonl(corpus.parent)))
    moved = corpus.parent.rename(tmp_path / "elsewhere")
    assert run(places(tmp_path, *jsonl(moved)))["state"] == "already"
    write_jsonl(moved / "b.jsonl", ["more"])
    with pytest.raises(UserError, match=r"data\.files: was .*, is now"):
        run(places(tmp_path, *jsonl(moved)))


def test_finished_shards_are_used_where_the_source_is_not(tmp_path: Path, corpus: Path) -> None:
    asked = places(tmp_path, *jsonl(corpus))
    run(asked)
    shutil.rmtree(corpus.parent)
    assert run(asked)["state"] == "already"
    with pytest.raises(UserError, match="seed: was 42, is now 1"):
        run(places(tmp_path, *jsonl(corpus), "seed=1"))


def test_the_limit_of_bad_lines_may_change(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path, *jsonl(corpus)))
    assert run(places(tmp_path, *jsonl(corpus), "data.source.max_bad_share=0.5"))["state"] == "already"


def test_two_experiments_may_share_a_corpus(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path, *jsonl(corpus), "data.name=shared"))
    assert run(places(tmp_path, *jsonl(corpus), "data.name=shared", "name=other"))["state"] == "already"


def test_without_sharding_the_shards_must_be_there(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(UserError, match=r"data\.shard=true \(or RUN_SHARD=1\).*data\.reuse_shards=true"):
        run(places(tmp_path, "data.shard=false"))
    run(places(tmp_path, *jsonl(corpus)))
    assert run(places(tmp_path, "data.shard=false"))["state"] == "already"


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_shards_that_are_cut_or_missing_are_refused_by_name(tmp_path: Path, corpus: Path, damage: str) -> None:
    asked = places(tmp_path, *jsonl(corpus))
    run(asked)
    shard = tmp_path / "datasets/train/made/train_00000.jsonl.zst"
    if damage == "cut":
        os.truncate(shard, shard.stat().st_size - 1)
    else:
        shard.unlink()
    with pytest.raises(UserError, match=r"train_00000\.jsonl\.zst.*restore the files, or run boot --redo shard"):
        run(asked)


def test_a_later_stage_waits_for_complete_shards(tmp_path: Path, corpus: Path) -> None:
    asked = places(tmp_path, *jsonl(corpus))
    run(asked)
    assert read_text(asked)["train"].complete
    path = tmp_path / "datasets/val/made/manifest.json"
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(UserError, match="not complete; run the shard stage"):
        read_text(asked)


# --- interrupted ------------------------------------------------------------------------------------------------------


def unfinished(root: Path, keep: int) -> None:
    """Make finished shards look as if the work had been lost when `keep` training shards were listed."""
    for split in ("train", "val"):
        folder = root / "datasets" / split / "made"
        value = json.loads((folder / "manifest.json").read_text())
        value = {**value, "complete": False, "shards": value["shards"][: keep if split == "train" else 0]}
        (folder / "manifest.json").write_text(json.dumps(value))
        (folder / f".train_00003.jsonl.zst.{os.getpid()}.tmp").write_text("half a shard")


def test_an_unfinished_corpus_goes_on_to_the_same_bytes(tmp_path: Path, corpus: Path) -> None:
    asked = places(tmp_path, *jsonl(corpus), "data.documents_per_shard=7", "data.validation_fraction=0.3")
    run(asked)
    whole = digest(tmp_path / "datasets")
    for keep in range(8):
        unfinished(tmp_path, keep)
        assert run(asked)["state"] == "written"
        assert digest(tmp_path / "datasets") == whole


def test_an_unfinished_corpus_of_other_inputs_is_refused_unless_it_holds_nothing(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path, *jsonl(corpus), "data.documents_per_shard=7"))
    unfinished(tmp_path, 3)
    with pytest.raises(UserError, match="documents_per_shard: was 7, is now 9"):
        run(places(tmp_path, *jsonl(corpus), "data.documents_per_shard=9"))
    unfinished(tmp_path, 0)
    assert run(places(tmp_path, *jsonl(corpus), "data.documents_per_shard=9"))["state"] == "written"


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_slice_never_gets_into_a_complete_corpus(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    asked = places(tmp_path, *jsonl(corpus), "data.documents_per_shard=7", "data.validation_fraction=0.3")
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_finish", stop_here)
        with pytest.raises(Interrupted):
            run(asked)
    path = work(tmp_path) / "00000" / "train_00001.jsonl.zst"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(data if damage == "flipped" else data[:-1])
    target = tmp_path / "datasets/train/made/train_00001.jsonl.zst"
    target.unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"train_00001\.jsonl\.zst.*boot --redo shard"):
        run(asked)
    assert not TextManifest.read(tmp_path / "datasets/train/made").complete


def stop_here(*_: object) -> NoReturn:
    raise Interrupted("here")


@pytest.fixture(scope="module")
def big_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("big") / "a.jsonl", made_documents(1500, words=400))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, big_corpus: Path) -> dict[str, str]:
    """What an undisturbed run leaves."""
    root = tmp_path_factory.mktemp("whole")
    assert sharder(root, *words(root, big_corpus)).returncode == 0
    return digest(root / "datasets")


def words(root: Path, corpus: Path) -> list[str]:
    root.mkdir(parents=True, exist_ok=True)
    more = ["data.documents_per_shard=60", "data.validation_fraction=0.2"]
    return ["shard", str(experiment_file(root)), *jsonl(corpus), *more]


def work(root: Path) -> Path:
    return root / "datasets" / "train" / "made" / ".work"


def slices(root: Path) -> int:
    return sum(num_slices(piece) for piece in work(root).glob("?????"))


@pytest.mark.slow
def test_sharding_killed_at_any_moment_ends_with_the_same_bytes(
    tmp_path: Path, big_corpus: Path, whole: dict[str, str]
) -> None:
    killed = tmp_path / "killed"
    chooser = random.Random(20)
    kills = 0
    for at_least in (0, 6, 16):
        process = start(killed, *words(killed, big_corpus))
        if wait_until(lambda at_least=at_least: slices(killed) >= at_least and work(killed).exists(), process):
            time.sleep(chooser.uniform(0, 0.02))
            process.kill()
        kills += process.wait() == -signal.SIGKILL
        process.communicate()
    assert kills >= 2
    done = sharder(killed, *words(killed, big_corpus))
    assert (done.returncode, facts(done.stdout)["state"]) == (0, "written"), done.stderr
    assert digest(killed / "datasets") == whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_stop_request_ends_with_75_and_nothing_half_written(
    tmp_path: Path, big_corpus: Path, whole: dict[str, str], number: signal.Signals
) -> None:
    process = start(tmp_path, *words(tmp_path, big_corpus))
    folder = tmp_path / "datasets" / "train" / "made"
    assert wait_until(lambda: slices(tmp_path) >= 3, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    said, last = err.splitlines()
    assert (process.returncode, last) == (75, f"sharder: interrupted: {number.name}")
    manifest = TextManifest.read(folder)
    found = facts(said)
    assert (found["complete"], found["why"]) == ("false", f"interrupted_by_{number.name}")
    assert int(found["train_documents"]) == manifest.num_documents
    manifest.verify(folder, hashes=True)
    assert (manifest.complete, manifest.ended) == (False, f"interrupted by {number.name}")
    listed = {shard.path for shard in manifest.shards} | {"manifest.json", ".work"}
    assert {path.name for path in folder.iterdir()} == listed

    if number != signal.SIGTERM:
        return
    # What is there is a corpus that may be used, when somebody says so; and the work goes on as if nothing had been.
    asked = words(tmp_path, big_corpus)[2:]
    assert run(places(tmp_path, *asked, "data.shard=false"))["train_documents"] == manifest.num_documents > 0
    assert read_text(places(tmp_path, *asked, "data.shard=false"))["val"].num_documents > 0
    with pytest.raises(UserError, match="not complete"):
        read_text(places(tmp_path, *asked))
    assert slices(tmp_path) >= 3, "using what there is must not cost the unfinished work"
    assert sharder(tmp_path, *words(tmp_path, big_corpus)).returncode == 0
    assert digest(tmp_path / "datasets") == whole


@pytest.mark.parametrize("shuffled", ["false", "true"])
def test_a_request_while_shards_are_verified_leaves_a_usable_corpus(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, shuffled: str
) -> None:
    overrides = [*jsonl(corpus), "data.validation_fraction=0.3", f"data.shuffle_documents={shuffled}"]
    run(places(tmp_path / "whole", *overrides))
    asked = places(tmp_path / "stopped", *overrides)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "complete", stop_here)
        with pytest.raises(Interrupted):
            run(asked)
    manifests = [TextManifest.read(asked.text(split)) for split in ("train", "val")]
    assert {(manifest.complete, manifest.ended) for manifest in manifests} == {(False, "interrupted by here")}
    assert run(places(tmp_path / "stopped", *overrides, "data.shard=false"))["train_documents"] == len(
        texts(tmp_path / "whole", "train")
    )
    assert run(asked)["state"] == "written"
    assert digest(tmp_path / "stopped" / "datasets") == digest(tmp_path / "whole" / "datasets")


def test_one_corpus_has_one_writer(tmp_path: Path, big_corpus: Path) -> None:
    process = start(tmp_path, *words(tmp_path, big_corpus))
    assert wait_until(lambda: slices(tmp_path) >= 1, process)
    process.send_signal(signal.SIGSTOP)
    second = sharder(tmp_path, *words(tmp_path, big_corpus))
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert second.returncode == 69
    assert f"sharding made (pid {process.pid} on" in second.stderr
    assert process.returncode == 0


def test_a_missing_source_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path=/nowhere: there is no such file") as error:
        run(places(tmp_path, *jsonl(Path("/nowhere"))))
    assert not isinstance(error.value, MissingError)
