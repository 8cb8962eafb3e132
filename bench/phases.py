"""Every way of asking a run to stop, in every phase of it: the right exit code, a committed checkpoint, no step lost.

    make prove-phases

Real boots of two ranks are held in a phase (tests/infra/held_boot.py says how) while the request is made. Then the run
is booted again, and must end with the weights and losses of a run that nobody disturbed. More rows make a save last
45 s and ask in the middle of it and just before it; signal every process of the job; compile for minutes; and kill
boot with SIGKILL in each phase, which must leave no process behind. The last line is one JSON object.
"""

import argparse
from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
import platform
import sys
import tempfile
import time

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("tests/infra", ".")]

import tiny_boot  # noqa: E402 - lies in a folder of tests, put on the path above
from held_boot import PHASES, REQUESTS, SAMPLES, Held, committed, ended_for, gone, hold, weights  # noqa: E402 - likewise
from tiny_boot import STEPS, TWO_RANKS, Place, checkpoints, copy_place, last_step, losses, make_place  # noqa: E402 - likewise

LONG_SAVE_S = 45
PATIENCE_S = 900.0
"""Of a machine that has other work too; nothing is measured by it."""
COMPILE = ("train.compile=true",)
WORDS = {"compile": COMPILE, "in a compile of minutes": COMPILE, "sampling": SAMPLES}
LONG = {
    "in a save of 45 s": PHASES["saving"],
    "just before a save of 45 s": f"{PHASES['before saving']} trainer.checkpoint:fsync_file:1:{LONG_SAVE_S}",
    "in a compile of minutes": PHASES["compile"],
}
KEEP_S = {"in a save of 45 s": LONG_SAVE_S, "just before a save of 45 s": 2, "in a compile of minutes": 600}
"""Long phase -> how long the ranks are held, whatever boot hears."""
EVERY_PROCESS = "to the whole job: SIGTERM and SIGUSR1"


@dataclass
class Row:
    """What came of one request in one phase."""

    phase: str
    request: str
    code: int
    saved: int
    seconds: float
    wrong: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="a phase, instead of all")
    arguments = parser.parse_args()
    started, rows = time.monotonic(), []
    tiny_boot.PATIENCE_S = PATIENCE_S
    with tempfile.TemporaryDirectory(prefix="phases-") as folder:
        ground = make_place(Path(folder) / "ground")
        assert ground.boot("--until", "tokenizer").code == 0
        for phase in [name for name in (*PHASES, *LONG) if arguments.only in ("", name)]:
            calm = copy_place(ground, Path(folder) / phase.replace(" ", "-"), trained=False)
            assert calm.start("--until", "train", TWO_RANKS, *WORDS.get(phase, ())).wait(PATIENCE_S).code == 0
            for request in (*REQUESTS, EVERY_PROCESS, "SIGKILL") if phase in PHASES else ("SIGTERM",):
                place = copy_place(ground, Path(folder) / "held", trained=False)
                rows.append(row(place, calm, phase, request))
                print(rows[-1], flush=True)
                place.root.rename(Path(folder) / f"done-{len(rows)}")
    result = {
        "name": "phases",
        "rows": [asdict(one) for one in rows],
        "wrong": sum(bool(one.wrong) for one in rows),
        "seconds": round(time.monotonic() - started, 1),
        "python_version": platform.python_version(),
        "processors": os.cpu_count(),
    }
    print(json.dumps(result))
    return 1 if result["wrong"] or not rows else 0


def row(place: Place, calm: Place, phase: str, request: str) -> Row:
    """Hold a run, ask, judge; then boot it again and hold what comes out against the undisturbed run."""
    words = WORDS.get(phase, ())
    if phase in LONG:
        held = hold(place, LONG[phase], request, *words, keep_s=KEEP_S.get(phase))
    else:
        held = hold(place, PHASES[phase], request, *words, keep_s=600 if request == "SIGKILL" else None)
    wrong = judged(place, held, request)
    if left := gone(place.root, 10):
        wrong.append(f"processes left: {left}")
    go_on = ("--continue",) if request == "stop RUN" else ()
    again = place.start("--until", "train", TWO_RANKS, *go_on, *words).wait(PATIENCE_S)
    if again.code != 0:
        wrong.append(f"booted again: exit {again.code}: {again.last}")
    elif weights(place, STEPS) != weights(calm, STEPS) or losses(place.run) != losses(calm.run):
        wrong.append("weights or losses are not those of the undisturbed run")
    return Row(phase, request, held.done.code, max(held.saved, default=0), round(held.seconds, 1), wrong)


def judged(place: Place, held: Held, request: str) -> list[str]:
    """Return what is wrong with how a request was met."""
    expected = {"stop RUN": 0, "SIGKILL": -9}.get(request, 75)
    wrong = [] if held.done.code == expected else [f"exit {held.done.code}, not {expected}: {held.done.last}"]
    if request == "stop RUN" and not ended_for(place):
        wrong.append("no ended.json")
    if "Traceback" in held.done.said:
        wrong.append("a traceback")
    if held.saved != checkpoints(place.run) or held.saved != committed(place):
        wrong.append("a checkpoint without manifest")
    # Who is killed can save nothing; what is done again must be the same.
    if request != "SIGKILL" and (made := last_step(place.run)) > max(held.saved, default=0):
        wrong.append(f"step {made} was made, {max(held.saved, default=0)} is saved")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
