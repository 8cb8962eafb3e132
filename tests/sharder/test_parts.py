"""Parts on several machines, limits, and every order of events: the same shards."""

from itertools import permutations
from pathlib import Path
import random

import pytest

from made_corpus import digest, jsonl, made_documents, places, sharder, start, words_of, write_jsonl
from sharder import plan
from sharder import shard as stage
from sharder.plan import Part
from sharder.shard import run
from trainwright.spec.exits import MissingError, UserError
from trainwright.store.text_shards import TextManifest, read_documents

NUM_FILES = 7
LIMITS = [(), ("data.source.take=150",), ("data.source.max_bytes=20000",)]
ORDERS = [(), ("data.shuffle_documents=true", "data.memory_mib=16")]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MIN_PIECE_BYTES", 1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    documents = made_documents(280)
    for number in range(NUM_FILES):
        lines = [*documents[number::NUM_FILES], " "]
        write_jsonl(tmp_path / "corpus" / f"{number}.jsonl", lines)
    return tmp_path / "corpus"


def words(corpus: Path, *more: str) -> list[str]:
    return [*jsonl(corpus), "data.documents_per_shard=17", "data.validation_fraction=0.2", *more]


@pytest.mark.parametrize("order", ORDERS, ids=["in order", "shuffled"])
@pytest.mark.parametrize("limit", LIMITS, ids=["all", "take", "max_bytes"])
@pytest.mark.parametrize("num_parts", [2, 5])
def test_any_number_of_parts_in_any_order_makes_the_shards_of_one(
    tmp_path: Path, corpus: Path, num_parts: int, limit: tuple[str, ...], order: tuple[str, ...]
) -> None:
    asked = words(corpus, *limit, *order)
    assert run(places(tmp_path / "one", *asked))["state"] == "written"
    whole = digest(tmp_path / "one" / "datasets")
    chooser = random.Random(num_parts)
    for attempt in range(2):
        root = tmp_path / f"many{attempt}"
        numbers = chooser.sample(range(1, num_parts + 1), num_parts)
        states = [run(places(root, *asked), Part(number, num_parts))["state"] for number in numbers]
        assert states[-1] == "written" or "written" in states
        assert digest(root / "datasets") == whole
        assert run(places(root, *asked), Part(1, num_parts))["state"] == "already"


def test_every_order_of_three_parts_ends_the_same(tmp_path: Path, corpus: Path) -> None:
    found = set()
    for number, order in enumerate(permutations((1, 2, 3))):
        states = [run(places(tmp_path / str(number), *words(corpus)), Part(part, 3))["state"] for part in order]
        assert states == ["part", "part", "written"]
        found.add(str(digest(tmp_path / str(number) / "datasets")))
    assert len(found) == 1


def test_parts_may_be_divided_anew_or_finished_by_one(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path / "one", *words(corpus)))
    run(places(tmp_path / "more", *words(corpus)), Part(2, 3))
    run(places(tmp_path / "more", *words(corpus)), Part(1, 2))
    assert run(places(tmp_path / "more", *words(corpus)))["state"] == "written"
    assert digest(tmp_path / "more" / "datasets") == digest(tmp_path / "one" / "datasets")


@pytest.mark.parametrize("limit", LIMITS[1:], ids=["take", "max_bytes"])
def test_a_limit_takes_the_first_documents_and_says_so(tmp_path: Path, corpus: Path, limit: tuple[str, ...]) -> None:
    run(places(tmp_path, *words(corpus, *limit)))
    folders = {split: tmp_path / "datasets" / split / "made" for split in ("train", "val")}
    manifests = {split: TextManifest.read(folder) for split, folder in folders.items()}
    found = [
        text
        for split, folder in folders.items()
        for shard in manifests[split].shards
        for text in read_documents(folder / shard.path)
    ]
    documents = made_documents(280)
    in_order = [text for number in range(NUM_FILES) for text in documents[number::NUM_FILES]]
    assert sorted(found) == sorted(in_order[: len(found)])
    assert {manifest.ended for manifest in manifests.values()} == {limit[0].partition("=")[0].rpartition(".")[2]}
    assert all(manifest.complete for manifest in manifests.values())
    if "take" in limit[0]:
        assert len(found) == 150
    else:
        size = sum(len(text.encode()) for text in found)
        assert size <= 20000 < size + len(in_order[len(found)].encode())


def test_a_shuffle_is_a_permutation_that_seed_and_contents_decide(tmp_path: Path, corpus: Path) -> None:
    orders = {}
    for name, more in {"plain": (), "one": ORDERS[1], "seed": (*ORDERS[1], "seed=7")}.items():
        run(places(tmp_path / name, *words(corpus, *more)))
        folder = tmp_path / name / "datasets" / "train" / "made"
        orders[name] = [
            text for shard in TextManifest.read(folder).shards for text in read_documents(folder / shard.path)
        ]
    assert sorted(orders["plain"]) == sorted(orders["one"])
    assert orders["plain"] != orders["one"]
    common = set(orders["one"]) & set(orders["seed"])
    assert [text for text in orders["one"] if text in common] != [text for text in orders["seed"] if text in common]


def test_a_shuffled_corpus_does_not_depend_on_its_files(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path / "many", *words(corpus, *ORDERS[1])))
    other = write_jsonl(tmp_path / "all.jsonl", made_documents(280)[::-1])
    run(places(tmp_path / "one", *words(other, *ORDERS[1])))
    hashes = [TextManifest.read(tmp_path / name / "datasets/train/made").sha256 for name in ("many", "one")]
    assert hashes[0] == hashes[1]


def test_work_goes_where_it_is_told_and_is_removed_when_asked(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path / "plain", *words(corpus)))
    elsewhere = [f"data.work={tmp_path / 'work'}", f"data.temporary={tmp_path / 'temporary'}"]
    run(places(tmp_path / "kept", *words(corpus, *elsewhere)))
    assert (tmp_path / "work" / "made" / "plan.json").exists()
    asked = places(tmp_path / "kept", *words(corpus, *elsewhere, "data.remove_work_files=true"))
    assert run(asked)["state"] == "already"
    assert not (tmp_path / "work" / "made").exists()
    assert digest(tmp_path / "kept" / "datasets") == digest(tmp_path / "plain" / "datasets")


@pytest.mark.parametrize("order", ORDERS, ids=["in order", "shuffled"])
@pytest.mark.parametrize("num_parts", [2, 5])
def test_parts_leave_no_work_files_when_asked_to(
    tmp_path: Path, corpus: Path, num_parts: int, order: tuple[str, ...]
) -> None:
    run(places(tmp_path / "one", *words(corpus, *order)))
    more = (f"data.work={tmp_path / 'work'}", f"data.temporary={tmp_path / 'own'}", "data.remove_work_files=true")
    states = [
        run(places(tmp_path / "many", *words(corpus, *order, *more)), Part(number, num_parts))["state"]
        for number in range(1, num_parts + 1)
    ]
    assert states == ["part"] * (num_parts - 1) + ["written"]
    assert not (tmp_path / "work" / "made").exists()
    assert digest(tmp_path / "many" / "datasets") == digest(tmp_path / "one" / "datasets")


def test_work_files_stay_while_a_complete_shard_is_damaged(tmp_path: Path, corpus: Path) -> None:
    kept = words(corpus, f"data.work={tmp_path / 'work'}")
    run(places(tmp_path, *kept))
    shard = tmp_path / "datasets/train/made/train_00000.jsonl.zst"
    data = bytearray(shard.read_bytes())
    data[30] ^= 1
    shard.unlink()
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"train_00000\.jsonl\.zst: its sha256"):
        run(places(tmp_path, *kept, "data.remove_work_files=true"))
    assert (tmp_path / "work" / "made" / "00000" / "slice_00000.json").exists()


def test_a_part_that_a_limit_made_needless_takes_away_what_it_wrote(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = LIMITS[1]
    run(places(tmp_path / "one", *words(corpus, *limit)))
    ingest = stage.ingest

    def overtaken(*given: object) -> object:
        monkeypatch.undo()
        monkeypatch.setattr(plan, "MIN_PIECE_BYTES", 1)
        assert run(places(tmp_path / "many", *words(corpus, *limit)), Part(1, 1))["state"] == "written"
        # As when it had come later to the piece: the folder is there again.
        (tmp_path / "many/datasets/train/made/.work/00006").mkdir(parents=True)
        return ingest(*given)

    monkeypatch.setattr(stage, "ingest", overtaken)
    assert run(places(tmp_path / "many", *words(corpus, *limit)), Part(2, 2))["state"] == "part"
    assert digest(tmp_path / "many" / "datasets") == digest(tmp_path / "one" / "datasets")
    assert not (tmp_path / "many/datasets/train/made/.work").exists()


def test_slices_without_their_plan_never_become_shards(tmp_path: Path, corpus: Path) -> None:
    kept = words(corpus, f"data.work={tmp_path / 'work'}")
    run(places(tmp_path / "first", *kept))
    (tmp_path / "work" / "made" / "plan.json").unlink()
    run(places(tmp_path / "clean", *words(corpus, "seed=7")))
    with pytest.raises(UserError, match="holds slices and no plan of them; delete that folder"):
        run(places(tmp_path / "second", *kept, "seed=7"), Part(1, 2))
    run(places(tmp_path / "second", *kept, "seed=7"))
    assert digest(tmp_path / "second" / "datasets") == digest(tmp_path / "clean" / "datasets")


def test_work_files_stay_while_a_shard_does_not_verify(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = places(tmp_path, *words(corpus, f"data.work={tmp_path / 'work'}", "data.remove_work_files=true"))

    def refuse(*_: object, **__: object) -> None:
        raise UserError("a shard does not verify")

    with monkeypatch.context() as patch:
        patch.setattr(TextManifest, "verify", refuse)
        with pytest.raises(UserError, match="does not verify"):
            run(asked)
    assert (tmp_path / "work" / "made" / "00000" / "slice_00000.json").exists()
    assert run(asked)["state"] == "written"
    assert not (tmp_path / "work" / "made").exists()


def test_a_disk_reserve_ends_the_reading_with_a_usable_corpus(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharder import slices
    from sharder.shard import read_text

    free = iter([10**15] * 5)
    usage = type("Usage", (), {"free": property(lambda _: next(free, 0))})
    with monkeypatch.context() as patch:
        patch.setattr(slices.shutil, "disk_usage", lambda _: usage())
        stopped = run(places(tmp_path, *words(corpus, "data.disk_reserve_gib=1")))
    assert (stopped["state"], stopped["complete"], stopped["why"]) == ("stopped", "false", "disk_reserve")
    found = read_text(places(tmp_path, *words(corpus, "data.disk_reserve_gib=1")))
    assert not found["train"].complete
    assert 0 < found["train"].num_documents < 224
    with monkeypatch.context() as patch:
        patch.setattr(slices.shutil, "disk_usage", lambda _: usage())
        with pytest.raises(MissingError, match=r"data\.disk_reserve_gib=1\.0; free some, or run without --part"):
            run(places(tmp_path / "part", *words(corpus, "data.disk_reserve_gib=1")), Part(1, 2))
        with pytest.raises(MissingError, match="free some, since nothing could be written yet"):
            run(places(tmp_path / "nothing", *words(corpus, "data.disk_reserve_gib=1")))
    # With room again the work goes on to the same shards.
    run(places(tmp_path, *words(corpus)))
    run(places(tmp_path / "whole", *words(corpus)))
    assert digest(tmp_path / "datasets") == digest(tmp_path / "whole" / "datasets")


def test_other_inputs_are_refused_by_unfinished_work(tmp_path: Path, corpus: Path) -> None:
    run(places(tmp_path, *words(corpus)), Part(1, 2))
    with pytest.raises(UserError, match="holds unfinished work on other inputs: seed: was 42, is now 7"):
        run(places(tmp_path, *words(corpus, "seed=7")))


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="give i/K with i from 1 to K"):
        Part.parse(text)


@pytest.mark.slow
def test_real_processes_work_on_parts_at_the_same_time(tmp_path: Path) -> None:
    for number in range(4):
        write_jsonl(tmp_path / "corpus" / f"{number}.jsonl", made_documents(900, seed=number, words=300))
    asked = words(tmp_path / "corpus")
    asked.append("data.documents_per_shard=100")
    # In a process of its own too, whose pieces have their real size.
    assert sharder(tmp_path / "one", *words_of(tmp_path / "one", *asked)).returncode == 0
    together = [start(tmp_path / "many", *words_of(tmp_path / "many", *asked), "--part", f"{i}/2") for i in (1, 2)]
    ends = [process.communicate(timeout=100) for process in together]
    assert [process.returncode for process in together] == [0, 0], ends
    assert digest(tmp_path / "many" / "datasets") == digest(tmp_path / "one" / "datasets")
