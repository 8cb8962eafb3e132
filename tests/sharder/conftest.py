from collections.abc import Callable
from typing import NoReturn

import pytest

from hub import CARD, NEW, OLD, Dataset, Hub, Running, parquet_bytes
from made_corpus import made_documents
from vocabularies import UnavailableError, cl100k_cache, gpt2_cache


@pytest.fixture
def hub() -> Running:
    """A hub with FineWeb's name: 120 documents in two files at the newest commit, other ones before it."""
    documents = made_documents(120)
    new = {
        "README.md": CARD,
        "sample/10BT/000_00000.parquet": parquet_bytes(documents[:70]),
        "sample/10BT/001_00000.parquet": parquet_bytes([*documents[70:], None, " \n"]),
        "data/CC-MAIN/000_00000.parquet": parquet_bytes(["of the default configuration"]),
    }
    old = {**new, "sample/10BT/001_00000.parquet": parquet_bytes(made_documents(5, seed=9))}
    running = Hub({"HuggingFaceFW/fineweb": Dataset({OLD: old, NEW: new})}).start()
    yield running
    running.stop()


@pytest.fixture
def gpt2_folder(engine_missing: Callable[[str], NoReturn]) -> str:
    """A folder with tiktoken's cache files of GPT-2."""
    try:
        return str(gpt2_cache())
    except UnavailableError as error:
        engine_missing(str(error))


@pytest.fixture
def cl100k_folder(engine_missing: Callable[[str], NoReturn]) -> str:
    """A folder with tiktoken's cache file of cl100k."""
    try:
        return str(cl100k_cache())
    except UnavailableError as error:
        engine_missing(str(error))
