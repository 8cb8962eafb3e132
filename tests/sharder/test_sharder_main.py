from pathlib import Path

import pytest

from made_corpus import experiment_file, facts, jsonl, made_documents, sharder, write_jsonl
from trainwright.spec.paths import Places
from trainwright.spec.resolved import experiment_text, open_experiment


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "required: shard|tokenizer|encode|import"),
        (("shread",), "invalid choice: 'shread'"),
        (("shard",), "no experiment given: name a file, or set RUN_CONFIG"),
        (("shard", "nowhere.yaml"), "nowhere.yaml: no such experiment file"),
        (("encode", "--input", "x"), "--tokenizer and --output missing"),
        (("encode", "e", "--input", "x", "--tokenizer", "y", "--output", "z"), "not both"),
    ],
)
def test_wrong_words_are_one_sentence_and_exit_78(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = sharder(tmp_path, *words)
    assert (done.returncode, done.stdout) == (78, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("word", ["shard", "tokenizer", "encode"])
def test_every_word_has_a_short_page_of_help(tmp_path: Path, word: str) -> None:
    done = sharder(tmp_path, word, "--help")
    assert done.returncode == 0
    assert "a.b=c" in done.stdout
    assert len(done.stdout.splitlines()) < (60 if word == "shard" else 30)


@pytest.mark.slow
def test_the_three_stages_run_from_either_form_of_the_experiment(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "a.jsonl", made_documents(100))
    overrides = [*jsonl(corpus), "tokenizer.kind=bpe", "tokenizer.vocab_size=400"]
    file = experiment_file(tmp_path)
    resolved = Places(tmp_path, open_experiment(file, overrides)).run.experiment
    resolved.parent.mkdir(parents=True)
    resolved.write_text(experiment_text(open_experiment(file, overrides), commit="c", image="i"))
    states = []
    for stage in ("shard", "tokenizer", "encode"):
        for words in ([str(file), *overrides], [str(resolved)]):
            done = sharder(tmp_path, stage, *words)
            assert done.returncode == 0, done.stderr
            last = facts(done.stdout)
            assert last["stage"] == stage
            assert all(line.startswith("stage=") for line in done.stderr.splitlines())
            states.append(last["state"])
    assert states == ["written", "already", "made", "shared", "written", "already"]


def test_the_experiment_may_come_from_the_environment(tmp_path: Path) -> None:
    done = sharder(tmp_path, "tokenizer", RUN_CONFIG=str(experiment_file(tmp_path)))
    assert done.returncode == 0, done.stderr
    again = sharder(
        tmp_path, "tokenizer", "tokenizer.kind=bytes", "tokenizer.name=other", RUN_CONFIG=str(experiment_file(tmp_path))
    )
    assert facts(again.stdout)["folder"].endswith("tokenizer/other")


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file where a folder should be")
    done = sharder(tmp_path, "tokenizer", str(experiment_file(tmp_path)))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "artifacts") in done.stderr
