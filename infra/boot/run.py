"""Boot: takes a run from an experiment file to a trained model and a report, stage by stage, as often as it is called.

Node 0 holds the run's lease and does every stage; the other nodes wait for it and then train beside it.
"""

import logging
import os
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from infra.boot.attempts import Attempt, Outcome, attempt_of, outcome_of_ranks, past_attempts, start_attempt
from infra.boot.board import board
from infra.boot.budget import FINAL, exhausted
from infra.boot.environment import room_folders
from infra.boot.host_memory import killed_since, memory_kills
from infra.boot.hours import held_to, max_hours
from infra.boot.nodes import Node, wait_for_name
from infra.boot.preflight import gpus, shared_memory
from infra.boot.records import Record, finish, is_done
from infra.boot.stages import REPORT, STAGES, TRAIN, WORK, Stage, bases, move_aside, progress
from infra.boot.stages import refuse_other_checkpoints, tokenizer_hash
from infra.boot.supervise import POLL_S, Interrupts, supervise
from infra.boot.watch import Watch
from infra.rooms import child_environment
from trainwright.spec.exits import Exit, Interrupted, MissingError, UserError, describe_os_error
from trainwright.spec.experiment import Experiment
from trainwright.spec.paths import Places
from trainwright.spec.load import read_source
from trainwright.spec.resolved import Training, experiment_hash, experiment_text, refuse_edited
from trainwright.spec.variables import ATTEMPT_VARIABLE, DEADLINE_VARIABLE, LEASE_VARIABLE, STOP_FILE_VARIABLE
from trainwright.store.assets import OFFLINE_VARIABLE, refuse_missing
from trainwright.store.files import read_json, set_aside, write_json, write_text
from trainwright.store.lease import Lease, acquire, read_holder
from trainwright.store.weights import refuse_other_model

log = logging.getLogger("boot")

COMMIT_VARIABLE = "TRAINWRIGHT_COMMIT"
IMAGE_VARIABLE = "TRAINWRIGHT_IMAGE"


@dataclass(frozen=True)
class Boot:
    """One call of boot."""

    experiment: Experiment
    places: Places
    node: Node
    interrupts: Interrupts
    until: str = STAGES[-1]
    redo: str | None = None
    go_on: bool = False
    fresh: bool = False

    def go(self) -> int:
        """Run what is left of the run; return the exit code."""
        started = time.monotonic()
        run = self.places.run
        log.info("boot: experiment=%s hash=%s", self.experiment.name, experiment_hash(self.experiment)[:12])
        log.info("boot: run folder %s", run)
        if self.experiment.resources.walltime_minutes is not None:
            self.interrupts.deadline = started + 60 * self.experiment.resources.walltime_minutes
        if given := os.environ.get(STOP_FILE_VARIABLE):
            self.interrupts.listen(Path(given))
        try:
            return self._lead() if self.node.is_first else self._follow()
        except EndedError:
            reason = read_json(run.ended).get("reason")
            log.info("boot: this run was ended (%s); boot --continue goes on with it", reason)
            return Exit.OK

    def _lead(self) -> int:
        """Prepare the run and train, with the lease in hand."""
        run = self.places.run
        if self.fresh:
            self._move_run_aside()
        elif not self.go_on:
            self.interrupts.end_file = run.ended
        self._heed_end()
        with self._acquire(f"boot of {self.experiment.name}") as lease:
            if self.go_on:
                # Not before the lease is ours: the record may be a request to the boot that holds it.
                run.ended.unlink(missing_ok=True)
                write_json(run.go_on, {"time": round(time.time(), 3)})
            self.interrupts.end_file = run.ended
            self._refuse_spent_budget()
            attempt = start_attempt(run, lease.holder.id, progress(self.places))
            with held_to(max_hours(), run):
                outcome = self._within_budget(self._attempt(attempt, lease))
            attempt.end(outcome)
        return outcome.code

    def _acquire(self, what: str) -> Lease:
        """Take the run's lease; a request ends the wait for one whose holder may be dead."""

        def heed() -> None:
            self._heed_end()
            self._heed("while waiting for the lease; run boot again to go on")

        return acquire(self.places.run.lease, what, wait=log.info, heed=heed)

    def _heed(self, where: str) -> None:
        if self.interrupts.pending():
            self.interrupts.publish()
            raise Interrupted(where)

    def _heed_end(self) -> None:
        if self.interrupts.ending():
            raise EndedError

    def _move_run_aside(self) -> None:
        run = self.places.run
        if run.path.exists():
            self._acquire("boot --fresh").release()
            log.info("boot: the old run was moved aside, to %s", set_aside(run.path))

    def _refuse_spent_budget(self) -> None:
        run = self.places.run
        spent = exhausted(past_attempts(run), progress(self.places), self.experiment.restart)
        if spent and not run.go_on.exists():
            raise UserError(f"{run}: {spent}; mend the cause, then boot --continue")

    def _within_budget(self, outcome: Outcome) -> Outcome:
        """Turn an outcome that means "again" into a final one when this attempt has spent the last of a budget."""
        if outcome.code in FINAL:
            return outcome
        past = past_attempts(self.places.run)
        this = replace(past[-1], code=outcome.code, reason=outcome.reason, step=outcome.step)
        spent = exhausted([*past[:-1], this], progress(self.places), self.experiment.restart)
        if spent is None:
            return outcome
        log.error("boot: %s; the run stops here: mend the cause, then boot --continue", spent)
        return Outcome(Exit.REFUSED, f"{spent}; after: {outcome.reason}", outcome.step, counted=outcome.code)

    def _attempt(self, attempt: Attempt, lease: Lease) -> Outcome:
        """Do every stage; whatever happens becomes an outcome, so that the attempt never lacks its end record."""
        try:
            self._listen(attempt)
            return self._work(attempt, lease)
        except Interrupted as stop:
            log.info("boot: interrupted %s", stop)
            return Outcome(Exit.INTERRUPTED, str(stop))
        except EndedError:
            log.info("boot: ended on request; boot --continue goes on with this run")
            return Outcome(Exit.OK, "ended on request")
        except UserError as error:
            log.error("boot: %s", error)  # noqa: TRY400 - a sentence for its user, not a traceback
            return Outcome(error.exit, str(error))
        except OSError as error:
            log.error("boot: %s", describe_os_error(error))  # noqa: TRY400 - a sentence too
            return Outcome(Exit.FAILED, describe_os_error(error))

    def _work(self, attempt: Attempt, lease: Lease) -> Outcome:
        self._prepare()
        if os.environ.get(OFFLINE_VARIABLE) == "1":
            refuse_missing(self.places)
        if STAGES.index(self.until) >= STAGES.index(TRAIN.name) and self._done(TRAIN) is None:
            self._check_machine()
            refuse_other_model(self.places)
        for stage in WORK:
            if STAGES.index(stage.name) > STAGES.index(self.until):
                break
            outcome = self._stage(stage, attempt, lease)
            if outcome is not None:
                return outcome
        if self.places.run.ended.exists():
            return Outcome(Exit.OK, "ended on request")
        return Outcome(Exit.OK, "complete" if self.until == STAGES[-1] else f"done until {self.until}")

    def _listen(self, attempt: Attempt) -> None:
        """Obey the attempt's own stop file, unless the target has given another one, in pod scratch."""
        if self.interrupts.stop_file is None:
            self.interrupts.listen(self.places.run.logs / f"stop-{attempt.number}")

    def _prepare(self) -> None:
        started = time.monotonic()
        places, run = self.places, self.places.run
        for folder in (run.path, run.logs, run.attempts, places.cache, places.hf_cache, places.assets):
            folder.mkdir(parents=True, exist_ok=True)
        self._refuse_other_run()
        if self.redo is not None:
            self._move_aside(self.redo)
        if run.training_yaml.exists():
            refuse_edited(run.training_yaml, read_source(run.training_yaml))
        text = experiment_text(self.experiment, commit=_commit(), image=os.environ.get(IMAGE_VARIABLE, ""))
        write_text(run.experiment, text)
        inputs = {"experiment": experiment_hash(self.experiment)}
        finish(run.stage("prepare"), inputs, [run.experiment], bases(places), started)
        log.info("stage=prepare done")

    def _check_machine(self) -> None:
        """Refuse a machine that cannot train before hours of other work are done on it."""
        shared_memory(self.experiment.resources)
        gpus(self.experiment.resources)

    def _refuse_other_run(self) -> None:
        """Hold the experiment against all that is done here before anything is overwritten."""
        kept = [stage for stage in WORK if self.redo is None or STAGES.index(stage.name) < STAGES.index(self.redo)]
        for stage in kept:
            self._done(stage)
        if TRAIN in kept and not self.places.run.stage("train").exists():
            refuse_other_checkpoints(self.experiment, self.places)

    def _done(self, stage: Stage) -> Record | None:
        """Return the record of a stage that is done and enough for this experiment; refuse changed inputs."""
        path = self.places.run.stage(stage.name)
        if not path.exists():
            return None
        way = f"choose another name, or boot --redo {stage.name}"
        inputs = stage.inputs(self.experiment, self.places)
        record = is_done(path, stage.name, inputs, way, bases(self.places), refuse=not stage.follows)
        return record if record is not None and stage.is_enough(self.experiment, record.facts) else None

    def _move_aside(self, first: str) -> None:
        later = [stage for stage in WORK if STAGES.index(stage.name) >= STAGES.index(first)]
        for stage in reversed(later):
            for path in move_aside(stage, self.experiment, self.places):
                log.info("redo: moved aside %s", path)

    def _stage(self, stage: Stage, attempt: Attempt, lease: Lease) -> Outcome | None:
        """Do one stage unless its record says that it is done; return an outcome when boot must stop here."""
        experiment, places = self.experiment, self.places
        record = self._done(stage)
        if record is not None:
            log.info("stage=%s done already (%s, %.1f s)", stage.name, record.finished, record.seconds)
            return None
        begun = time.monotonic()
        if stage is REPORT:
            # The last words of a run are for one that was ended, too.
            self.interrupts.end_file = None
        self._heed_end()
        self._heed(f"before stage {stage.name}; run boot again to go on")
        log.info("stage=%s start", stage.name)
        if stage is TRAIN:
            outcome = self._train(attempt, lease.holder.id)
            if outcome.code != Exit.OK:
                return outcome
            if places.run.ended.exists():
                log.info("stage=train ended on request at step %s", outcome.step)
                return None
        for command in stage.commands(experiment, places):
            self._run_room(stage.name, command)
        outputs = stage.outputs(experiment, places)
        facts = stage.facts(experiment, places)
        path, inputs = places.run.stage(stage.name), stage.inputs(experiment, places)
        record = finish(path, inputs, outputs, bases(places), begun, facts)
        words = " ".join(f"{key}={value}" for key, value in facts.items())
        log.info("stage=%s done seconds=%.1f %s", stage.name, record.seconds, words)
        return None

    def _run_room(self, stage: str, command: list[str]) -> None:
        environ = child_environment(room_folders(self.places))
        code, _ = supervise(command, environ, self.interrupts)
        if code != 0:
            self._heed_end()
        if code == Exit.INTERRUPTED or (code != 0 and self.interrupts.pending()):
            raise Interrupted(f"in stage {stage}; run boot again to go on")
        if code in (Exit.REFUSED, Exit.MISSING):
            # The room has said why; the class carries its code out of here.
            kind = MissingError if code == Exit.MISSING else UserError
            raise kind(f"stage {stage} cannot go on (see above)")
        if code != 0:
            raise StageFailedError(f"stage {stage} failed with exit code {code} (see above)")

    def _train(self, attempt: Attempt, lease_id: str) -> Outcome:
        """Write the trainer's projection, let the other nodes go on, and run this node's ranks."""
        places, run = self.places, self.places.run
        train_tokens, val_tokens = (places.tokens(split, tokenizer_hash(places)) for split in ("train", "val"))
        training = Training(self.experiment, run.path, train_tokens, val_tokens, places.tokenizer)
        write_text(run.training_yaml, training.yaml_text())
        write_text(run.training_toml, training.toml_text())
        write_json(attempt.prepared, {"training": str(run.training_yaml)})
        return self._run_ranks(attempt, lease_id)

    def _run_ranks(self, attempt: Attempt, lease_id: str) -> Outcome:
        if self.node.master is not None:
            limit_s = 60 * self.experiment.resources.wait_minutes
            wait_for_name(self.node.master[0], limit_s, lambda: self._heed("while waiting for node 0's name"))
        deadline = self.interrupts.deadline
        extra = {
            **room_folders(self.places),
            ATTEMPT_VARIABLE: str(attempt.folder),
            LEASE_VARIABLE: lease_id,
            STOP_FILE_VARIABLE: str(self.interrupts.stop_file),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            # Threads that spin while they wait take the cores of the ranks beside them.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        }
        if deadline is not None:
            extra[DEADLINE_VARIABLE] = str(deadline)
        command = self.node.agent_command(self.places.run)
        watch = Watch(attempt, self.node.ranks, self.experiment.resources)
        port = self.experiment.logging.tensorboard_port if self.node.is_first else None
        kills = memory_kills()
        with board(self.places.run, port):
            code, hung = supervise(command, child_environment(extra), self.interrupts, watch)
        outcome = outcome_of_ranks(attempt, self.node.ranks, code, memory_ran_out=killed_since(kills))
        if hung is not None:
            outcome = Outcome(Exit.FAILED, hung, outcome.step)
        if outcome.code in (Exit.REFUSED, Exit.MISSING):
            # Each rank has left the sentence in its record and said nothing.
            log.error("boot: %s", outcome.reason)
        elif outcome.code != Exit.OK:
            log.warning("stage=train %s (exit %d)", outcome.reason, outcome.code)
        return outcome

    def _follow(self) -> int:
        """Wait for node 0 to prepare the run, then train beside it."""
        if self._nothing_left():
            log.info("boot: every stage is done already")
            return Exit.OK
        # With --continue or --fresh node 0 is about to remove the record.
        self.interrupts.end_file = None if self.go_on or self.fresh else self.places.run.ended
        self._heed_end()
        attempt = self._wait_for_first_node(60 * self.experiment.resources.wait_minutes)
        if attempt.end_record.exists():
            code = int(read_json(attempt.end_record)["code"])
            log.info("boot: node 0 ended with %d before this node trained", code)
            return code
        self._listen(attempt)
        self._check_machine()
        lease_id = str(read_json(attempt.folder / "start.json")["lease"])
        return self._run_ranks(attempt, lease_id).code

    def _nothing_left(self) -> bool:
        """Return whether the run is complete; node 0 finds the same, and may be gone before this node looks."""
        if self.redo is not None or self.fresh:
            return False
        asked = [stage for stage in WORK if STAGES.index(stage.name) <= STAGES.index(self.until)]
        return all(self._done(stage) is not None for stage in asked)

    def _wait_for_first_node(self, limit_s: float) -> Attempt:
        """Return node 0's attempt once it is prepared or over; a lease that stands still is a dead boot's."""
        run = self.places.run
        log.info("waiting: for node 0 to prepare %s; at most %.0f s without a sign of life", run, limit_s)
        seen, alive, deadline = read_holder(run.lease), False, time.monotonic() + limit_s
        while time.monotonic() < deadline:
            self._heed("while waiting for node 0")
            holder = read_holder(run.lease)
            if holder is not None and holder != seen:
                # A lease that changes under our eyes is alive, whatever the clocks say.
                seen, alive, deadline = holder, True, time.monotonic() + limit_s
            # One that is taken away belonged to a boot that has come to its end.
            attempt = attempt_of(run, seen.id) if seen is not None and (alive or holder is None) else None
            if attempt is not None and (attempt.prepared.exists() or attempt.end_record.exists()):
                return attempt
            # Not for a node 0 that waits for this one by now: its ranks hear of the end together with ours.
            self._heed_end()
            time.sleep(POLL_S)
        raise MissingError(f"{run.lease}: node 0 gave no sign of life for {limit_s:.0f} s; is its boot running?")


class EndedError(Exception):
    """The run was asked to end for good, before anything had to be saved."""


class StageFailedError(UserError):
    """A room ended with a code that it does not use for its users' mistakes."""

    exit = Exit.FAILED


def _commit() -> str:
    """Return the commit of this code: baked into the image, else asked of git when this is a checkout."""
    baked = os.environ.get(COMMIT_VARIABLE)
    if baked:
        return baked
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607 - git of the path
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return found.stdout.strip()
