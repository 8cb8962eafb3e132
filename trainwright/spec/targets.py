"""Where an experiment is sent, one settings class a target. Nothing here changes what is learned."""

from trainwright.spec.kubernetes import KubernetesTarget
from trainwright.spec.runpod import RunpodTarget
from trainwright.spec.settings import Settings
from trainwright.spec.slurm import SlurmTarget


class LocalTarget(Settings):
    """The machine in front of you."""

    container: bool = False
    """Run the image, through docker or podman compose; false runs the installed trainwright."""


class Targets(Settings):
    """What each target needs to know beyond the experiment."""

    local: LocalTarget = LocalTarget()
    """This machine."""
    slurm: SlurmTarget = SlurmTarget()
    """A SLURM site."""
    runpod: RunpodTarget = RunpodTarget()
    """A pod at RunPod."""
    kubernetes: KubernetesTarget = KubernetesTarget()
    """A Kubernetes cluster."""
