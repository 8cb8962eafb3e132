"""The node script: runs words of `trainwright` on one node as its site wants it, in the image or in a venv.

Every task of a job runs it; by hand it runs anything else the same way, such as `bash NAME.node.sh chat RUN`.
"""

from infra.apptainer import Container, exported
from infra.job import SCRATCH, Job
from infra.shell import command_line, expanding_line
from infra.slurm.bash import demand, failing, scratch, waiting
from infra.slurm.layout import node_script, secrets_file, sif_path, venv_script
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.slurm import SlurmTarget

LOCKS = ("torch-cuda.lock", "trainer.lock")
PYTHON_IS_OLD = "python3 here is older than 3.11; targets.slurm.modules may name a module of a newer one"
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "PET_NNODES", "PET_MASTER_ADDR")
"""What a job knows and its container must be told, where it is set."""


def node_text(job: Job) -> str:
    """Return the node script."""
    site, name = job.targets.slurm, node_script(job.name)
    off = site.container == "off"
    lines = [
        "#!/usr/bin/env bash",
        f"# Runs words of trainwright on one node of {site.site or 'a SLURM site'}: `bash {name} boot ...`.",
        "# Rendered; edit the experiment or the site's profile instead.",
        *failing(name),
        *_modules(site),
        "set -euo pipefail",
        'here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)',
        'root=$(cd "$here/../.." && pwd)',
        *scratch(site.scratch),
        *_scratch_checks(site),
        *_give(job),
        *(_venv(site, job) if off else _runtime(job)),
        *waiting(":"),
        *(['cd "$root"', 'finish "$venv/bin/trainwright" "$@"'] if off else [f"finish {_container_line(job)}"]),
        'rm -rf "$scratch"',
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def venv_text(job: Job) -> str:
    """Return the script that makes a virtual environment from the image's lock files, for sites without containers."""
    name, venv = venv_script(job.name), job.targets.slurm.venv or "$root/venv"
    # Hashes hold every package; what is left is this project itself, whose needs are all in the lock files.
    locked = "--quiet --no-deps --require-hashes --only-binary :all:"
    lines = [
        "#!/usr/bin/env bash",
        f"# Makes the virtual environment of jobs that use no container: `bash {name} CHECKOUT`; again starts anew.",
        *failing(name),
        *_modules(job.targets.slurm),
        "set -euo pipefail",
        'root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)',
        f'venv="{venv}" checkout="$1"',
        demand("python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'", Exit.MISSING, PYTHON_IS_OLD),
        'python3 -m venv --clear "$venv"',
        *(f'"$venv/bin/pip" install {locked} --requirement "$checkout/docker/{lock}"' for lock in LOCKS),
        '"$venv/bin/pip" install --quiet --no-deps "$checkout"',
    ]
    return "\n".join(lines) + "\n"


def _modules(site: SlurmTarget) -> list[str]:
    if not site.modules:
        return []
    says = "module $1 does not load on $(hostname)"
    return [
        "# A module that does not load may still give 0; what is loaded stands in LOADEDMODULES.",
        "# shellcheck disable=SC1091",
        "type module > /dev/null 2>&1 || . /etc/profile",
        "load() {",
        '    module load "$1" || true',
        '    case ":${LOADEDMODULES:-}:" in *":$1:"* | *":$1/"*) return ;; esac',
        f"    fail 69 \"{says}; 'module spider $1' says more, targets.slurm.modules names the modules\"",
        "}",
        *(f"load {command_line([module])}" for module in site.modules),
    ]


def _scratch_checks(site: SlurmTarget) -> list[str]:
    way = "targets.slurm.scratch names another folder"
    unusable = f"scratch folder '$disk' is not there or cannot be written on $(hostname); {way}"
    free = "$((free_kib >> 10)) MiB free on $(hostname)"
    full = f"scratch folder $disk has {free}, and targets.slurm.scratch_gib={site.scratch_gib}; {way}"
    return [
        demand('[ -d "$disk" ] && [ -w "$disk" ]', Exit.MISSING, unusable),
        "free_kib=$(df -Pk \"$disk\" | awk 'NR == 2 {print $4}')",
        demand(f'[ "$free_kib" -ge {site.scratch_gib << 20} ]', Exit.MISSING, full),
        '(umask 077 && mkdir -p "$scratch")',
    ]


def _give(job: Job) -> list[str]:
    """Return what exports variables to the command, inside a container or outside."""
    site = job.targets.slurm
    inside = " ".join(f'"{name}={value}"' for name, value in exported({"$1": "$2"}).items())
    scratch_inside = "$scratch" if site.container == "off" else SCRATCH
    plain = list(job.environ)
    plain += [("WANDB_ENTITY", site.wandb_entity)] if site.wandb_entity else []
    for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        plain += [(variable, site.network_interface)] if site.network_interface else []
    off = [("TRAINWRIGHT_ROOT", "$root"), ("TMPDIR", "$scratch")] if site.container == "off" else []
    ours = [("TRAINWRIGHT_STOP_FILE", f"{scratch_inside}/stop"), ("PET_NODE_RANK", "${SLURM_NODEID:-0}"), *off]
    return [
        f'give() {{ export "$1=$2" {inside}; }}',
        *(f"give {command_line([name, value])}" for name, value in plain),
        *(f'give {name} "{value}"' for name, value in ours),
        *([] if site.internet else _offline()),
        f"for name in {' '.join((*PASSED_ON, 'PET_MASTER_PORT'))}; do",
        '    [ -z "${!name:-}" ] || give "$name" "${!name}"',
        "done",
        *_secrets(job),
    ]


def _offline() -> list[str]:
    """Return what keeps libraries from trying a network that nodes lack; a host that runs this by hand may have one."""
    values = [*((name, "1") for name in OFFLINE), ("WANDB_MODE", "offline")]
    return [
        'if [ -n "${SLURM_JOB_ID:-}" ]; then',
        *(f"    give {name} {value}" for name, value in values),
        "fi",
    ]


def _secrets(job: Job) -> list[str]:
    if not job.secrets:
        return []
    file = f"$here/{secrets_file(job.name)}"
    private = f'case "$(stat -c %a "{file}")" in 600 | 400) ;; *) false ;; esac'
    return [
        demand(
            f"{{ {private}; }}", Exit.REFUSED, f"{file}: others may read it, or it is not there; run chmod 600 on it"
        ),
        "# shellcheck disable=SC1090,SC1091",
        f'. "{file}"',
        f"for name in {' '.join(job.secrets)}; do",
        "    " + demand('[ -n "${!name:-}" ]', Exit.MISSING, f"{file}: has no $name; launch writes it there"),
        '    give "$name" "${!name}"',
        "done",
    ]


def _runtime(job: Job) -> list[str]:
    fetch = f"run 'trainwright fetch {job.name}' on a host with internet"
    neither = "neither apptainer nor singularity is on $(hostname); targets.slurm.modules may name its module"
    kept, is_kept = 'kept=$(cut -c 1-64 "$sif.sha256")', '[ "$(sha256sum < "$sif" | cut -c 1-64)" = "$kept" ]'
    return [
        f'sif="{sif_path(job)}"',
        demand('[ -r "$sif" ]', Exit.MISSING, f"$sif: no such image file; {fetch}"),
        'if [ "$sif" -nt "$sif.sha256" ]; then',
        "    " + demand(kept, Exit.MISSING, "$sif.sha256: is not there; 'make sif' and 'trainwright fetch' write it"),
        "    "
        + demand(is_kept, Exit.MISSING, "$sif: its sha256 is not the one in $sif.sha256; copy or fetch it again"),
        "fi",
        demand("runtime=$(command -v apptainer || command -v singularity)", Exit.MISSING, neither),
        'mkdir -p "$scratch/cache"',
        'export APPTAINER_CACHEDIR="$scratch/cache" SINGULARITY_CACHEDIR="$scratch/cache"',
        'export APPTAINER_TMPDIR="$scratch" SINGULARITY_TMPDIR="$scratch"',
    ]


def _container_line(job: Job) -> str:
    site = job.targets.slurm
    for folder in job.folders:
        if set(folder) & set(":,$\"'\\` \n"):
            raise UserError(f"{folder}: cannot be shown to a container; choose a path without : , $ spaces and quotes")
    binds = [*site.binds, *(f"{folder}:{folder}" for folder in job.folders)]
    container = Container(
        sif="$sif",
        root="$root",
        scratch="$scratch",
        gpus=job.resources.device != "cpu",
        flags=(*site.container_flags, *(word for bind in binds for word in ("--bind", bind))),
    )
    return expanding_line(container.arguments([], program="$runtime")) + ' "$@"'


def _venv(site: SlurmTarget, job: Job) -> list[str]:
    way = f"run 'trainwright fetch {job.name}' on a host with internet"
    return [
        f'venv="{site.venv or "$root/venv"}"',
        demand('[ -x "$venv/bin/trainwright" ]', Exit.MISSING, f"$venv: has no trainwright; {way}"),
    ]
