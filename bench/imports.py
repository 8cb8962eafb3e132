"""How long the command line's imports take: words alone, everything that rendering needs, and `render` itself.

    make prove-imports

Every import runs in a Python of its own. The programs take turns, so that a slow moment of the machine falls on all of
them; the median counts. `python` is an interpreter that imports nothing: what nobody can avoid.
"""

import json
import os
from pathlib import Path
import platform
from statistics import median
import subprocess
import sys
import time

ROUNDS = 21
ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {
    "python": "",
    "spec": "import trainwright.spec",
    "render": "import infra.cli, infra.job, infra.targets, infra.submit",
    "render_demo": "import infra.cli; infra.cli.main(['render', 'demo', '--target', 'local'])",
}
LIMITS_S = {"spec": 0.3, "render": 0.3, "render_demo": 0.5}


def main() -> int:
    """Print the medians as one JSON object; return 1 when one is over the limit."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    cpu: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for number in range(ROUNDS + 1):
        for name, program in PROGRAMS.items():
            wall_s, cpu_s = run(program)
            # The first round fills the caches of files and of byte code.
            if number > 0:
                seconds[name].append(wall_s)
                cpu[name].append(cpu_s)
    medians = {name: round(median(taken), 4) for name, taken in seconds.items()}
    over = [name for name, limit in LIMITS_S.items() if medians[name] > limit]
    result = {
        "bench": "imports",
        "unit": "seconds from start to end of a fresh interpreter, median",
        "rounds": ROUNDS,
        "limits": LIMITS_S,
        **medians,
        "fastest": {name: round(min(taken), 4) for name, taken in seconds.items()},
        "slowest": {name: round(max(taken), 4) for name, taken in seconds.items()},
        "cpu_seconds": {name: round(median(taken), 4) for name, taken in cpu.items()},
        "passed": not over,
        "python_version": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(result))
    return 1 if over else 0


def run(program: str) -> tuple[float, float]:
    """Return the seconds that a fresh interpreter takes for a program: on the clock, and of a processor."""
    # Byte code is kept, as after an installation; some machines switch that off for all Pythons.
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall_s, used


if __name__ == "__main__":
    sys.exit(main())
