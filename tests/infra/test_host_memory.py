"""Kills for want of memory are counted by whichever file the system has."""

from pathlib import Path

from infra.boot.host_memory import COUNTERS, killed_since, memory_kills


def test_the_first_file_that_counts_is_believed(tmp_path: Path) -> None:
    mine, machine = tmp_path / "memory.events", tmp_path / "vmstat"
    machine.write_text("pgfault 17\noom_kill 40\n")
    counters = ((mine, "oom_kill"), (machine, "oom_kill"))
    assert memory_kills(counters) == 40
    mine.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert memory_kills(counters) == 2
    mine.write_text("low 0\n")
    assert memory_kills(counters) == 40


def test_where_nothing_counts_nothing_is_said(tmp_path: Path) -> None:
    assert memory_kills(((tmp_path / "missing", "oom_kill"),)) is None
    assert not killed_since(None)


def test_this_machine_counts() -> None:
    assert any(path.exists() for path, _ in COUNTERS)
    now = memory_kills()
    assert now is not None
    assert not killed_since(now + 1)
    assert killed_since(now - 1)
