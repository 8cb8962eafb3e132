"""Whether the system killed a process here for want of memory: what looks like a preemption is none then."""

from pathlib import Path

COUNTERS = (
    (Path("/sys/fs/cgroup/memory.events"), "oom_kill"),
    (Path("/sys/fs/cgroup/memory/memory.oom_control"), "oom_kill"),
    (Path("/proc/vmstat"), "oom_kill"),
)
"""Files with lines `NAME COUNT`: of this container by either version of cgroups, else of the whole machine."""


def memory_kills(counters: tuple[tuple[Path, str], ...] = COUNTERS) -> int | None:
    """Return how many processes were killed for want of memory so far; None where nothing counts them."""
    for path, name in counters:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            word, _, count = line.partition(" ")
            if word == name and count.strip().isdigit():
                return int(count)
    return None


def killed_since(before: int | None) -> bool:
    """Return whether the count has risen since it was `before`."""
    now = memory_kills()
    return before is not None and now is not None and now > before
