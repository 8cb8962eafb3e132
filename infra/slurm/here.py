"""What the words find out on the host where they run, and add as overrides: the site, and how long a save takes.

Rendering itself looks at nothing; what is found here stands in the command that it is given, and is said in one line.
"""

import fnmatch
import math
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.slurm.layout import LOGS
from trainwright.spec.exits import UserError
from trainwright.spec.load import Loaded, find_experiment, load_experiment, parse, read_source
from trainwright.spec.paths import Places, root_from
from trainwright.spec.sites import LOCAL, SITES

GENERIC = "generic"
SAVED = re.compile(rb"checkpoint saved seconds=(\d+\.\d+)")
TAIL_BYTES = 1 << 20
EARLY_S = 60
"""SLURM may look at limits this late or early."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One override, and the line that says where it comes from."""

    override: str
    sentence: str


def find_here(loaded: Loaded, sites: Path, root: Path, host: str | None = None) -> list[Finding]:
    """Return what this host adds to an experiment that leaves it open."""
    name, found = host or socket.gethostname(), []
    if loaded.experiment.targets.slurm.site is None and (site := site_of_host(name, sites)) is not None:
        found.append(Finding(f"targets.slurm.site={site}", f"site: {site}, by the name of this host ({name})"))
    origin = loaded.origin("targets.slurm.signal_lead_seconds")
    if origin == "default" or Path(origin.partition(":")[0]).parent == sites:
        seconds = longest_save(Places(root, loaded.experiment).run.path / LOGS)
        if seconds is not None:
            lead = lead_for(seconds)
            why = f"told to save {lead} s before the time limit, since this run's saves took up to {seconds:.0f} s"
            found.append(Finding(f"targets.slurm.signal_lead_seconds={lead}", why))
    return found


def site_of_host(host: str, sites: Path) -> str | None:
    """Return the site that a host's name belongs to, else the generic profile, None where there are no profiles."""
    short, found = host.partition(".")[0], []
    for file in sorted(sites.glob("*.yaml")):
        if file.name == LOCAL:
            continue
        block = parse(read_source(file), str(file))[0].get("slurm")
        patterns = block.get("hosts", []) if isinstance(block, dict) else []
        if any(fnmatch.fnmatchcase(name, pattern) for name in (host, short) for pattern in _words(patterns)):
            found.append(file.stem)
    if len(found) > 1:
        ways = ", ".join(found)
        raise UserError(f"{host}: is a host of {ways} by their profiles; say which in targets.slurm.site")
    return found[0] if found else GENERIC if (sites / f"{GENERIC}.yaml").is_file() else None


def _words(value: str | Sequence[object] | None) -> Sequence[str]:
    return value.replace(",", " ").split() if isinstance(value, str) else [str(word) for word in value or ()]


def longest_save(logs: Path) -> float | None:
    """Return the longest save that a run's logs tell of; reads their ends."""
    found: list[float] = []
    for file in sorted(logs.glob("*.out")):
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - TAIL_BYTES))
            found += [float(match) for match in SAVED.findall(log.read())]
    return max(found, default=None)


def lead_for(seconds: float) -> int:
    """Return a lead for saves of so many seconds: two of them (one may have begun), and SLURM's own inaccuracy."""
    return 10 * math.ceil((2 * seconds + EARLY_S) / 10)


def with_site(loaded: Loaded, name: str | None) -> Loaded:
    """Return an experiment loaded again with what this host adds to it, each said in one line."""
    found = find_here(loaded, SITES, root_from())
    for finding in found:
        print(finding.sentence, file=sys.stderr)  # noqa: T201 - the terminal is told what was added
    overrides = (*loaded.overrides, *(finding.override for finding in found))
    return load_experiment(find_experiment(name), overrides, sites=SITES) if found else loaded
