from pathlib import Path
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from sharder import encoders
from sharder.encoders import VECTORS, Encoder, Tiktoken, agree, choose_encoder, mark_digits
from sharder.tokenizer import PATTERNS, gpt2_bundle, train_bpe, with_chat_specials
from sources import ROOT, sources
from trainwright.tokens.bundle import Bundle, bytes_bundle

NUMBERS = "".join(chr(code) for code in range(0x3200) if unicodedata.category(chr(code))[0] == "N")
ALPHABETS = (
    st.characters(exclude_categories=["Cs"]),
    st.characters(max_codepoint=0x250),
    st.sampled_from(" \n\r\t\x0b\u00a0\u2028\u3000\x85\x1c aB1.'"),
    st.sampled_from("0123456789" * 3 + ".,- ax\x00" + NUMBERS),
    st.sampled_from("'sSdDmMtTlLvVrReE\u017f\u212a\u2019 "),
)
TEXTS = st.lists(st.one_of(*(st.text(each, max_size=20) for each in ALPHABETS)), max_size=4).map("".join)


@pytest.fixture(scope="module", params=PATTERNS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Tiktoken]:
    """Return the fast encoder of a vocabulary that was trained on our own sources, and tiktoken's."""
    folder = tmp_path_factory.mktemp(request.param)
    files = []
    for number, path in enumerate(sources("sharder", "trainwright")):
        files.append(folder / f"{number}.txt")
        files[-1].write_text((ROOT / path).read_text())
    pattern = PATTERNS[request.param]
    ranks, _, _ = train_bpe(files, 3000, pattern, 1 << 30)
    bundle = with_chat_specials("bpe", pattern, ranks, {})
    bundle.save(folder / "bundle")
    fast, why = choose_encoder(bundle, folder / "bundle")
    assert fast.name.startswith("gigatoken-"), why
    return fast, Tiktoken(bundle)


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=6))
def test_the_fast_encoder_gives_tiktokens_tokens_on_any_text(pair: tuple[Encoder, Tiktoken], texts: list[str]) -> None:
    assert agree(*pair, [text.encode() for text in texts])


def test_the_fast_encoder_gives_tiktokens_tokens_on_the_real_text_at_hand(pair: tuple[Encoder, Tiktoken]) -> None:
    paths = [*sources("infra", "trainer", "report"), *(path.relative_to(ROOT) for path in ROOT.glob("*/*.md"))]
    documents = [(ROOT / path).read_bytes() for path in paths]
    assert sum(map(len, documents)) > 500_000
    assert agree(*pair, documents)


@pytest.mark.parametrize(
    "text", [" " * 1_200_000 + "a", "\u3000" * 400_000 + "x", "7" * 30_000, "é" * 30_000, " \n" * 12_000 + "x"]
)
def test_documents_that_tiktoken_refuses_are_cut_in_the_same_pieces(pair: tuple[Encoder, Tiktoken], text: str) -> None:
    assert agree(*pair, [text.encode()])


def test_the_fast_encoder_gives_gpt2s_tokens(gpt2_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", gpt2_folder)
    bundle = gpt2_bundle(tmp_path)
    bundle.save(tmp_path / "gpt2")
    fast, _ = choose_encoder(bundle, tmp_path / "gpt2")
    assert fast.name.startswith("gigatoken-")
    found = fast.encode([b"Hello, world! <|endoftext|>"])
    assert found.tolist() == [50256, 15496, 11, 995, 0, 1279, 91, 437, 1659, 5239, 91, 29]
    documents = [(ROOT / path).read_bytes() for path in sources("infra", "trainer")]
    assert agree(fast, Tiktoken(bundle), documents)


@given(st.text("0123456789ab é\n", max_size=60).map(str.encode))
def test_a_mark_stands_behind_every_second_digit_that_goes_on(text: bytes) -> None:
    def slowly(data: bytes) -> bytes:
        made, run = b"", 0
        for byte in data:
            is_digit = chr(byte).isdigit() and byte < 128
            made += (b"\0" if is_digit and run and run % 2 == 0 else b"") + bytes([byte])
            run = run + 1 if is_digit else 0
        return made

    assert mark_digits(text) == slowly(text)


# --- which encoder it is ----------------------------------------------------------------------------------------------


def saved(folder: Path, bundle: Bundle) -> tuple[Bundle, Path]:
    bundle.save(folder)
    return bundle, folder


def small(pattern: str = PATTERNS["gpt4"], first: int = 0) -> Bundle:
    ranks = {bytes([byte]): first + byte for byte in range(256)}
    for token in ("12", "123", " 1", "  ", "\n\n", "'s", "'S", "\n ", " \n", "LL"):
        ranks[token.encode()] = first + len(ranks)
    return with_chat_specials("bpe", pattern, ranks, {})


def test_an_encoder_that_gives_other_tokens_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.SCHEMES, PATTERNS["gpt2"], "gpt4")
    found, why = choose_encoder(*saved(tmp_path, small(PATTERNS["gpt2"])))
    assert isinstance(found, Tiktoken)
    assert why.endswith("gives other tokens for this vocabulary")


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (small(r"\p{L}+|\P{L}"), "no faster one splits text by this vocabulary's pattern"),
        (small(first=9), "gigatoken does not read this vocabulary"),
    ],
)
def test_tiktoken_encodes_where_the_fast_one_cannot(tmp_path: Path, bundle: Bundle, reason: str) -> None:
    found, why = choose_encoder(*saved(tmp_path, bundle))
    assert isinstance(found, Tiktoken)
    assert why.startswith(reason)


def test_tiktoken_encodes_when_it_is_asked_for_or_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, folder = saved(tmp_path, small())
    assert choose_encoder(bundle, folder, fast=False)[1] == "data.encoder=tiktoken"
    monkeypatch.setitem(__import__("sys").modules, "gigatoken.gigatoken_rs", None)
    found, why = choose_encoder(bundle, folder)
    assert isinstance(found, Tiktoken)
    assert why == "gigatoken is not installed"


def test_bytes_are_their_own_tokens(tmp_path: Path) -> None:
    found, _ = choose_encoder(*saved(tmp_path, bytes_bundle()))
    assert found.encode(["é\0".encode(), b"a"]).tolist() == [256, 0xC3, 0xA9, 0, 256, 97]


def test_the_vectors_know_a_wrong_split() -> None:
    # Each of these wrong ways to split must show on at least one vector, or the check at the start says nothing.
    documents = [text.encode() for text in VECTORS]
    for one in PATTERNS:
        for other in PATTERNS:
            pair = (Tiktoken(small(PATTERNS[name])) for name in (one, other))
            assert agree(*pair, documents) == (one == other)
