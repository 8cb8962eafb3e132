"""Warns before money is spent: a volume that will be full in the middle of a run."""

from pathlib import Path
from tempfile import TemporaryDirectory

from infra.runpod import cloud
from infra.runpod.client import Client
from infra.runpod.create import Say
from infra.runpod.manifest import Manifest
from infra.runpod.storage import needs
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import find_experiment, load_experiment
from trainwright.spec.variables import RUN_CONFIG, RUN_CONFIG_TEXT


def warn_if_small(client: Client, manifest: Manifest, say: Say) -> None:
    """Say so when an experiment's data and checkpoints will not fit onto the volume of its manifest."""
    experiment = _experiment(manifest)
    if experiment is None or manifest.volume is None:
        return
    volume, wanted = cloud.find_volume(client, manifest.volume), needs(experiment)
    if wanted.total > volume.size_gb:
        way = "grow it at RunPod (it can never shrink), or keep fewer checkpoints and take fewer documents"
        say(f"warning: {volume.name} has {volume.size_gb} GB, and {experiment.name} needs {wanted}; {way}")


def _experiment(manifest: Manifest) -> Experiment | None:
    """Return the manifest's experiment, when this checkout has it or the manifest carries it."""
    environ = manifest.body.get("env", {})
    given = {name: environ[name] for name in ("RUN_EXPERIMENT", "RUN_SHARD", "SHARD_LINES") if environ.get(name)}
    try:
        if environ.get(RUN_CONFIG):
            return load_experiment(find_experiment(Path(environ[RUN_CONFIG]).stem), environ=given).experiment
        with TemporaryDirectory() as folder:
            path = Path(folder) / "experiment.yaml"
            path.write_text(environ.get(RUN_CONFIG_TEXT, ""), encoding="utf-8")
            return load_experiment(path, environ=given).experiment
    except UserError:
        return None  # boot says what is wrong with it; an estimate is no reason to stop here
