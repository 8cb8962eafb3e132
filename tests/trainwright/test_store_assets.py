from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from trainwright.spec.exits import MissingError
from trainwright.spec.load import load_experiment
from trainwright.spec.paths import Places
from trainwright.store.assets import GPT2_FILES, assets_of, compared_with, file_asset, refuse_missing
from trainwright.store.files import FileEntry, write_bytes, write_json
from trainwright.store.text_shards import TextManifest


@pytest.fixture
def places(experiment_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Places]:
    return lambda *words: Places(tmp_path / "root", load_experiment(experiment_file(), words).experiment)


def needed(places: Places) -> list[str]:
    return [asset.name for asset in assets_of(places) if asset.problem() is not None]


def test_what_makes_its_own_text_needs_nothing(places: Callable[..., Places]) -> None:
    assert needed(places()) == []
    refuse_missing(places())


def test_text_of_the_hub_is_needed_until_its_shards_are_complete(places: Callable[..., Places]) -> None:
    place = places("data.source.kind=fineweb")
    assert needed(place) == ["text shards"]
    for split in ("train", "val"):
        TextManifest(split, "fraction", 1, {}, complete=split == "train").write(place.text(split))  # type: ignore[arg-type]
    assert needed(place) == ["text shards"]
    TextManifest("val", "fraction", 1, {}, complete=True).write(place.text("val"))
    assert needed(place) == []


def test_local_text_is_needed_where_the_experiment_says(places: Callable[..., Places], tmp_path: Path) -> None:
    place = places("data.source.kind=text", f"data.path={tmp_path}/text", f"data.validation={tmp_path}")
    assert needed(place) == ["data.path"]
    with pytest.raises(
        MissingError, match=r"text: is not there; run `trainwright fetch small` on a host with internet"
    ):
        refuse_missing(place)


def test_gpt2_is_needed_until_there_is_a_bundle(places: Callable[..., Places]) -> None:
    place = places("tokenizer.kind=gpt2")
    assert needed(place) == ["gpt2 vocab.bpe", "gpt2 encoder.json"]
    write_bytes(place.tokenizer / "manifest.json", b"{}")
    assert needed(place) == []


def test_tiktokens_names_are_the_sha1_of_the_addresses() -> None:
    import hashlib

    from trainwright.store.assets import CL100K_FILE, CL100K_URL, TIKTOKEN

    addresses = {f"{TIKTOKEN}/{what}": entry for what, entry in GPT2_FILES.items()} | {CL100K_URL: CL100K_FILE}
    for address, entry in addresses.items():
        assert entry.path == hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()


def test_what_a_tokenizer_is_compared_with_is_needed_by_no_stage(places: Callable[..., Places]) -> None:
    trained = places("tokenizer.kind=bpe")
    assert needed(trained) == []
    assert [asset.name for asset in compared_with(trained)] == ["gpt2 vocab.bpe", "gpt2 encoder.json", "cl100k_base"]
    assert compared_with(places("tokenizer.kind=gpt2")) == []


def test_weights_are_needed_until_the_run_has_its_own(places: Callable[..., Places]) -> None:
    place = places("train.init_from=other")
    assert needed(place) == ["train.init_from"]
    write_bytes(place.run.checkpoints / "step_00000001" / "manifest.json", b"{}")
    assert needed(place) == []


def test_a_model_of_the_hub_is_needed_until_it_is_whole_and_a_folder_until_it_is_there(
    places: Callable[..., Places], tmp_path: Path
) -> None:
    place = places("train.init_from=hub:some/model@v1")
    assert needed(place) == ["train.init_from"]
    with pytest.raises(MissingError, match=r"hub:some/model@v1: is not in .*; run `trainwright fetch small`"):
        refuse_missing(place)
    folder = place.assets / "models" / "some--model@v1"
    entry = write_bytes(folder / "config.json", b"{}")
    assert needed(place) == ["train.init_from"]
    write_json(folder / "manifest.json", {"files": [asdict(entry)]})
    assert needed(place) == []
    theirs = places(f"train.init_from={tmp_path}/theirs")
    assert needed(theirs) == ["train.init_from"]
    write_bytes(tmp_path / "theirs" / "config.json", b"{}")
    assert needed(theirs) == []


def test_a_file_of_another_content_is_not_in_place(tmp_path: Path) -> None:
    entry = FileEntry("x", 5, "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d")
    asset = file_asset("x", "tokenizer", tmp_path, entry)
    assert str(asset.problem()).endswith("missing")
    (tmp_path / "x").write_bytes(b"other")
    assert "sha256" in str(asset.problem())
    (tmp_path / "x").write_bytes(b"image")
    assert asset.problem() is None
