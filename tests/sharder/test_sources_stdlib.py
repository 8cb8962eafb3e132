from pathlib import Path
import subprocess
import sys
import sysconfig

from made_corpus import REPOSITORY, documents
from sharder.sources.corpus import Request
from sharder.sources.stdlib import LEFT_OUT, StdlibCorpus, open_stdlib
from trainwright.spec.data import StdlibSource
from trainwright.store.text_shards import Drops


def opened(tmp_path: Path) -> StdlibCorpus:
    return open_stdlib(Request(StdlibSource(), None, "data.path", tmp_path, {}))


def test_every_file_is_a_document_or_a_counted_drop(tmp_path: Path) -> None:
    corpus, drops = opened(tmp_path), Drops()
    found = documents(corpus, drops)
    assert len(found) > 400
    assert len(found) + drops.total() == len(corpus.files)
    assert (corpus.listing.root / "abc.py").read_text(encoding="utf-8") in found


def test_files_come_in_sorted_order_without_tests_and_packages(tmp_path: Path) -> None:
    corpus = opened(tmp_path)
    names = [file.name for file in corpus.files]
    assert names == sorted(names)
    assert not LEFT_OUT & {part for name in names for part in name.split("/")[:-1]}
    assert "json/decoder.py" in names


def test_the_fingerprint_is_the_same_inside_and_outside_a_virtual_environment(tmp_path: Path) -> None:
    base = f"{sys.base_prefix}/bin/python{sysconfig.get_python_version()}"
    program = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    outside = subprocess.run([base, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert str(opened(tmp_path).listing.root) == outside.stdout.strip()
    assert opened(tmp_path).inputs == opened(tmp_path).inputs
