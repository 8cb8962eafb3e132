"""Everything a report is made from, read from one run folder; what is missing is listed beside what is there."""

from dataclasses import dataclass
import math

from report.corpus import Corpus, read_corpus
from report.metrics import Metrics, read_metrics
from report.records import Attempt, Gaps, Sample, StageRecord, as_count, as_text
from report.records import read_attempts, read_ended, read_samples, read_stages
from trainwright.spec.derived import Derived
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import parse, read_source
from trainwright.spec.paths import RunFolder
from trainwright.spec.resolved import Training, read_resolved, read_training
from trainwright.store.files import read_json


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run was made from: the hash of its experiment, the commit and the image; empty when not recorded."""

    hash: str
    commit: str
    image: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one run."""

    name: str
    experiment: Experiment | None
    origin: Origin | None
    metrics: Metrics
    samples: tuple[Sample, ...]
    stages: tuple[StageRecord, ...]
    attempts: tuple[Attempt, ...]
    ended: str | None
    """The reason why the run was ended on request."""
    corpus: Corpus
    gaps: tuple[str, ...]

    @property
    def derived(self) -> Derived | None:
        """Return the numbers that follow from the experiment."""
        return Derived(self.experiment) if self.experiment is not None else None

    @property
    def num_steps(self) -> int | None:
        """Return the updates that the whole run is to make."""
        return self.derived.steps if self.derived is not None else None


def read_facts(run: RunFolder) -> Facts:
    """Read a run folder; raise `UserError` only when the folder is none."""
    _require_run_folder(run)
    gaps = Gaps()
    experiment = gaps.read("experiment.yaml", lambda: read_resolved(run.experiment))
    training = gaps.read("training.yaml", lambda: read_training(run.training_yaml))
    if experiment is None and training is not None:
        experiment = training.experiment
    metrics = gaps.read("metrics.jsonl", lambda: read_metrics(run.metrics)) or Metrics()
    _note_metrics(metrics, gaps)
    _note_refusals(run, gaps)
    return Facts(
        name=experiment.name if experiment is not None else run.path.absolute().name,
        experiment=experiment,
        origin=gaps.read("experiment.yaml", lambda: _origin(run)) if run.experiment.exists() else None,
        metrics=metrics,
        samples=read_samples(run.samples, gaps),
        stages=read_stages(run, gaps),
        attempts=read_attempts(run.attempts, gaps),
        ended=read_ended(run.ended, gaps),
        corpus=_corpus(training, gaps),
        gaps=tuple(gaps.sentences),
    )


def _require_run_folder(run: RunFolder) -> None:
    if not run.path.is_dir():
        raise UserError(f"{run}: no such folder; name the folder of a run, such as workspace/runs/demo")
    signs = (run.experiment, run.training_yaml, run.metrics, run.path / "stages", run.attempts)
    if not any(sign.exists() for sign in signs):
        what = "is no run folder (it has no experiment.yaml, training.yaml, metrics.jsonl, stages or attempts)"
        raise UserError(f"{run}: {what}; name the folder of a run, such as workspace/runs/demo")


def _origin(run: RunFolder) -> Origin:
    tree, _ = parse(read_source(run.experiment), str(run.experiment))
    return Origin(*(as_text(tree.get(key)) for key in ("hash", "commit", "image")))


def _corpus(training: Training | None, gaps: Gaps) -> Corpus:
    return read_corpus(training, gaps) if training is not None else Corpus()


def _note_metrics(metrics: Metrics, gaps: Gaps) -> None:
    if metrics.num_broken:
        lines = "1 line is" if metrics.num_broken == 1 else f"{metrics.num_broken} lines are"
        gaps.add(f"metrics.jsonl: {lines} no row of figures and left out")
    unfit = [row.step for row in metrics.train if row.loss is None or not math.isfinite(row.loss)]
    if unfit:
        steps = "1 step has" if len(unfit) == 1 else f"{len(unfit)} steps have"
        gaps.add(f"metrics.jsonl: {steps} no finite loss, the first is step {unfit[0]}")


def _note_refusals(run: RunFolder, gaps: Gaps) -> None:
    """Say what the newest checkpoint tells of batches that no update was made of."""
    newest = max(run.checkpoints.glob("step_" + "[0-9]" * 8), default=None)
    if newest is None:
        return
    name = f"{newest.name}/train_state.json"
    state = gaps.read(name, lambda: read_json(newest / "train_state.json")) or {}
    refused, rollbacks = state.get("refused"), as_count(state.get("rollbacks")) or 0
    if isinstance(refused, list) and refused:
        batches = "1 batch was" if len(refused) == 1 else f"{len(refused)} batches were"
        returns = "1 return" if rollbacks == 1 else f"{rollbacks} returns"
        what = f"{batches} passed over for a loss or gradient that is no finite number"
        gaps.add(f"{name}: {what} (the first at sample {as_text(refused[0])}); {returns} to a checkpoint")
