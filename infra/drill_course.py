"""The course of a drill.

    probe a few steps -> one undisturbed run -> one run that is struck, resumed and struck again -> compare

Boots are started as commands, and die with the drill.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from infra.drill_table import Blow, Outcome, Pace, Struck, compare, pace, shortened
from infra.rooms import child_environment, room_command
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.paths import MANIFEST, ROOT_VARIABLE, Places, RunFolder, step_name
from trainwright.spec.resolved import dump
from trainwright.spec.variables import BOOT_VARIABLES, RUN_CONFIG, STOP_FILE_VARIABLE
from trainwright.store.files import write_text
from trainwright.store.process import processes_with

MARK = "TRAINWRIGHT_DRILL"
"""Set for every process of a drill, so that it strikes and clears away its own and nobody else's."""
PROBE_STEPS = 4
GONE_WITHIN_S = 5.0
LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Drilled:
    """All that a drill found out."""

    cut: Pace
    step_seconds: float
    rows: list[Struck]
    same: bool
    verdict: str


@dataclass
class Course:
    """One drill under way."""

    experiment: Experiment
    places: Places
    folder: Path
    blows: tuple[Blow, ...]
    boots: int = 0

    def go(self) -> Drilled:
        """Probe, run once in peace and once under blows, and compare."""
        probe, calm, struck = (self._run(name) for name in ("probe", "calm", "struck"))
        self._write(Pace(PROBE_STEPS, PROBE_STEPS))
        if not self._has_data():
            _say("corpus and tokenizer are not there yet: boot makes them, where the real run will find them")
            self._in_peace(probe, "--until", "tokenizer", shown=True)
        _say(f"{PROBE_STEPS} steps, to see how long one takes")
        self._in_peace(probe, "--until", "train")
        seconds = median(row["step_seconds"] for row in _rows(probe)[1:] if "step_seconds" in row)
        cut = pace(seconds, len(self.blows))
        self._write(cut)
        _say(f"a step takes {seconds:.3g} s: {cut.steps} steps that save every {cut.save_every}, first undisturbed")
        self._in_peace(calm, "--until", "train")
        rows = self._strike_all(struck, cut)
        same, verdict = compare(
            _outcome(calm, cut.steps), _outcome(struck, cut.steps), deterministic=self.experiment.train.deterministic
        )
        return Drilled(cut, seconds, rows, same, verdict)

    def _run(self, part: str) -> RunFolder:
        return RunFolder(self.folder / part / f"{self.experiment.name[:46].rstrip('-')}-drill")

    def _has_data(self) -> bool:
        texts = [self.places.text(split) / MANIFEST for split in ("train", "val")]
        return all(path.exists() for path in (*texts, self.places.tokenizer / MANIFEST))

    def _write(self, cut: Pace) -> None:
        write_text(self.folder / "drill.yaml", dump(shortened(self.experiment, self.places, cut)))

    def _start(self, run: RunFolder, *words: str, stop_file: Path | None = None, shown: bool = False) -> "Boot":
        self.boots += 1
        log = self.folder / f"boot-{self.boots:02d}.log"
        own = (*BOOT_VARIABLES, RUN_CONFIG, STOP_FILE_VARIABLE)
        kept = {name: value for name, value in os.environ.items() if name not in own}
        extra = {ROOT_VARIABLE: str(self.places.root), MARK: str(self.folder)}
        if stop_file is not None:
            extra[STOP_FILE_VARIABLE] = str(stop_file)
        places = (f"paths.runs={run.path.parent}", f"paths.cache={self.folder / 'cache'}")
        command = room_command("infra.boot", str(self.folder / "drill.yaml"), *places, *words)
        with log.open("wb") as file:
            # The drill's own stdout is for its answer.
            output = sys.stderr if shown else file
            # A group of its own: a Ctrl-C at the terminal is the drill's.
            process = subprocess.Popen(
                command, env=child_environment(extra, kept), stdout=output, stderr=output, start_new_session=True
            )
        return Boot(process, log, run)

    def _in_peace(self, run: RunFolder, *words: str, shown: bool = False) -> None:
        boot = self._start(run, *words, shown=shown)
        code = boot.process.wait()
        if code != Exit.OK:
            raise _failed(code, "without any blow", "see above" if shown else boot.last_words())

    def _strike_all(self, run: RunFolder, cut: Pace) -> list[Struck]:
        rows: list[Struck] = []
        for number, blow in enumerate(self.blows):
            stop_file = self.folder / f"stop-{number}" if blow.stop_file else None
            boot = self._start(run, "--until", "train", stop_file=stop_file)
            # One step more than the next save: there is something to lose.
            boot.wait_for_step((rows[-1].newest if rows else 0) + cut.save_every + 1)
            rows[-1:] = [replace(row, resumed=boot.resumed()) for row in rows[-1:]]
            _say(f"{number + 1} of {len(self.blows)}: {blow.what}")
            rows.append(self._strike(boot, blow, stop_file))
        _say("the rest in peace")
        boot = self._start(run, "--until", "train")
        code = boot.process.wait()
        if code != Exit.OK:
            raise _failed(code, "after the last blow", boot.last_words())
        rows[-1] = replace(rows[-1], resumed=boot.resumed())
        return rows

    def _strike(self, boot: "Boot", blow: Blow, stop_file: Path | None) -> Struck:
        """Send what the target sends, watch for the save, and kill what is left when the notice is over."""
        at, newest, saved_s, cut_off = _last_step(boot.run), _newest(boot.run), None, False
        tree, begun = processes_with(MARK, str(self.folder)), time.monotonic()
        if stop_file is not None:
            stop_file.touch()
        for whom, number in blow.sends:
            if whom == "group":
                os.killpg(boot.process.pid, number)
            else:
                _kill({"boot": [boot.process.pid], "all": list(tree), "rank": _ranks(tree, boot)[-1:]}[whom], number)
        while boot.process.poll() is None:
            if (now := _newest(boot.run)) != newest:
                newest, saved_s = now, time.monotonic() - begun
            if blow.notice_s is not None and time.monotonic() - begun > blow.notice_s and not cut_off:
                cut_off = True
                _kill(processes_with(MARK, str(self.folder)))
            time.sleep(LOOK_S)
        if (now := _newest(boot.run)) != newest:
            newest, saved_s = now, time.monotonic() - begun
        left = self._left()
        return Struck(blow, at, boot.process.returncode, saved_s, cut_off, newest, _last_step(boot.run), left)

    def _left(self) -> int:
        """Return how many processes outlive boot, and end them."""
        deadline = time.monotonic() + GONE_WITHIN_S
        while (left := processes_with(MARK, str(self.folder))) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        _kill(left)
        return len(left)


@dataclass(frozen=True)
class Boot:
    """A boot that was started."""

    process: "subprocess.Popen[bytes]"
    log: Path
    run: RunFolder

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is finished; raise when boot ends before that."""
        while _last_step(self.run) < step:
            code = self.process.poll()
            if code is not None:
                raise _failed(code, f"before step {step}", self.last_words())
            time.sleep(LOOK_S)

    def resumed(self) -> int | None:
        """Return the step that it went on from, by its own word."""
        said = self.log.read_text(errors="replace")
        found = re.findall(r"resume: (?:from step_(\d{8}),|starting from step (0),)", said)
        return int(found[-1][0] or found[-1][1]) if found else None

    def last_words(self) -> str:
        """Return the last line that it said."""
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


class DrillFailedError(UserError):
    """A boot ended where none should have; carries its code."""


def _failed(code: int, when: str, said: str) -> DrillFailedError:
    error = DrillFailedError(f"boot ended with {code} {when} ({said}); mend that, or add --keep and read its logs")
    error.exit = Exit(code) if code in (Exit.REFUSED, Exit.MISSING) else Exit.FAILED
    return error


def _ranks(tree: Mapping[int, int], boot: Boot) -> list[int]:
    """Return the children of boot's child, torchrun: the ranks."""
    agents = [pid for pid, parent in tree.items() if parent == boot.process.pid]
    return sorted(pid for pid, parent in tree.items() if parent in agents)


def _rows(run: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of the run's figures; a last line may still be on its way."""
    if not run.metrics.exists():
        return []
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _last_step(run: RunFolder) -> int:
    return max((row["step"] for row in _rows(run) if "loss" in row), default=0)


def _newest(run: RunFolder) -> int:
    return max((int(path.name[5:]) for path in run.checkpoints.glob("step_????????")), default=0)


def _outcome(run: RunFolder, steps: int) -> Outcome:
    files = sorted((run.checkpoints / step_name(steps)).glob("*.safetensors"))
    weights = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    rows = [row for row in _rows(run) if "loss" in row]
    figures = {row["step"]: (row["loss"], row["grad_norm"]) for row in rows}
    seen = [row["step"] for row in rows]
    repeated = tuple(sorted({step for step in seen if seen.count(step) > 1}))
    return Outcome(weights, figures, repeated, on_gpu=any(row["peak_memory_gib"] is not None for row in rows))


def end_all(folder: Path) -> None:
    """Kill every process of the drill that works in a folder."""
    _kill(processes_with(MARK, str(folder)))


def _kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _say(words: str) -> None:
    sys.stderr.write(f"drill: {words}\n")
    sys.stderr.flush()
