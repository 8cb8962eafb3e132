from pathlib import Path
import time

import pytest

from infra.boot.records import Record, finish, is_done
from trainwright.spec.exits import UserError

INPUTS = {"data.documents_per_shard": 8, "tokenizer.kind": "bytes", "tokenizer.name": None}
WAY = "boot --redo shard"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    return path


@pytest.fixture
def record(tmp_path: Path, output: Path) -> Path:
    path = tmp_path / "stages" / "shard.json"
    finish(path, INPUTS, [output], {"data": tmp_path}, time.monotonic(), {"shards": 3}, now=lambda: 0.0)
    return path


def check(path: Path, inputs: dict[str, object] = INPUTS, *, refuse: bool = True) -> Record | None:
    return is_done(path, "shard", inputs, WAY, {"data": path.parents[1]}, refuse=refuse)


def test_a_stage_without_a_record_is_still_to_do(tmp_path: Path) -> None:
    assert check(tmp_path / "shard.json") is None


def test_a_finished_stage_is_done_and_gives_its_figures_back(record: Path) -> None:
    found = check(record)
    assert found is not None
    assert (found.stage, found.inputs, found.facts) == ("shard", INPUTS, {"shards": 3})
    assert list(found.outputs) == ["data:manifest.json"]
    assert found.finished == "1970-01-01T00:00:00Z"
    assert found.seconds >= 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data.documents_per_shard": 9}, "data.documents_per_shard: was 8, is now 9"),
        ({"tokenizer.kind": "bpe"}, "tokenizer.kind: was bytes, is now bpe"),
        ({"tokenizer.name": "shared"}, "tokenizer.name: was not there, is now shared"),
    ],
)
def test_a_changed_input_is_refused_with_field_old_and_new_value(
    record: Path, changed: dict[str, object], words: str
) -> None:
    before = record.read_bytes()
    with pytest.raises(UserError) as found:
        check(record, {**INPUTS, **changed})
    assert words in str(found.value)
    assert WAY in str(found.value)
    assert record.read_bytes() == before


def test_every_changed_input_is_named_at_once(record: Path) -> None:
    with pytest.raises(UserError, match=r"documents_per_shard.*tokenizer\.kind"):
        check(record, {**INPUTS, "data.documents_per_shard": 9, "tokenizer.kind": "bpe"})


def test_a_missing_output_is_refused_by_name(record: Path, output: Path) -> None:
    output.unlink()
    with pytest.raises(UserError) as found:
        check(record)
    assert f"{output}: missing" in str(found.value)
    assert WAY in str(found.value)


def test_a_changed_output_is_refused_by_name(record: Path, output: Path) -> None:
    output.write_text("{ }")
    with pytest.raises(UserError, match="changed since the stage finished"):
        check(record)


def test_a_stage_that_follows_is_simply_done_again(record: Path, output: Path) -> None:
    assert check(record, refuse=False) is not None
    assert check(record, {**INPUTS, "tokenizer.kind": "bpe"}, refuse=False) is None
    output.unlink()
    assert check(record, refuse=False) is None


def test_outputs_may_move_with_the_folder_that_holds_them(record: Path, tmp_path: Path) -> None:
    before = tmp_path / "manifest.json"
    (tmp_path / "elsewhere").mkdir()
    before.rename(tmp_path / "elsewhere" / "manifest.json")
    assert is_done(record, "shard", INPUTS, WAY, {"data": tmp_path / "elsewhere"}, refuse=True) is not None


def test_an_output_is_named_below_the_first_folder_that_holds_it(record: Path, output: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    (run / "report.md").parent.mkdir(parents=True)
    (run / "report.md").write_text("# report")
    found = finish(record, {}, [run / "report.md", output, Path(__file__)], {"run": run, "data": tmp_path}, 0.0)
    assert list(found.outputs) == ["run:report.md", "data:manifest.json", __file__]
    assert found.broken_output({"run": run, "data": tmp_path}) is None


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}", '{"stage": "shard"}', '{"other": 1}', "{" * 100])
def test_a_record_that_is_none_is_refused_with_a_way_out(record: Path, text: str) -> None:
    record.write_text(text)
    with pytest.raises(UserError) as found:
        check(record)
    assert str(found.value).startswith(f"{record}: not a stage record")
    assert str(found.value).count(str(record)) == 1
    assert "boot --redo shard" in str(found.value)
