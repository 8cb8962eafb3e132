"""The job scripts of training and of preparation: they start boot, hear SLURM's notice, and act on boot's exit code.

What may be tried again is boot's judgement, by its budgets; the script only turns its code into requeue, next link or
end. A job that never got as far as boot is not tried again: nothing would count it.
"""

from collections.abc import Sequence

from infra.job import Job
from infra.shell import command_line
from infra.slurm.bash import demand, failing, scratch, waiting
from infra.slurm.directives import prepare_directives, sweep_directives, train_directives
from infra.slurm.layout import BEGUN, OVER, experiment_path, node_script, run_path, train_script
from trainwright.spec.exits import Exit

WAIT_S = 60
"""How long nodes may outlive the first that ends: they have heard the same, and write their records."""
FIRST_PORT, NUM_PORTS = 61000, 4536
"""Above the ports that Linux gives away by itself; by job, so that two jobs on a node do not meet."""


def train_text(job: Job) -> str:
    """Return the job script of training."""
    site, many = job.targets.slurm, job.resources.nodes > 1
    label = " --label" if many else ""
    lines = [
        "#!/usr/bin/env bash",
        *train_directives(job),
        f"# Trains {job.name} on {site.site or 'a SLURM site'}. Rendered; edit the experiment or the profile instead.",
        f"# `launch` sends it from ROOT/launch/{job.name}, to which its paths are relative.",
        "set -euo pipefail",
        *_over(job),
        *scratch(site.scratch),
        *waiting('mkdir -p "$scratch"; touch "$scratch/stop"'),
        *(_chain(job) if site.continuation == "chain" else []),
        *(_rendezvous(job) if many else []),
        *_flags(job),
        "attempts() { find "
        + run_path(job)
        + "/attempts -mindepth 1 -maxdepth 1 -printf '%i\\n' 2> /dev/null | sort; }",
        "before=$(attempts || true)",
        'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"',
        f"finish srun --wait={WAIT_S}{label} {_boot(job, job.overrides)}",
        f'echo "{job.name}: boot ended with $code (job $SLURM_JOB_ID, start ${{SLURM_RESTART_COUNT:-0}})"',
        *_after(job),
    ]
    return "\n".join(lines) + "\n"


def prepare_text(job: Job) -> str:
    """Return the script of the preparation: a job on a CPU node, or `bash` on a host of the site."""
    lines = [
        "#!/usr/bin/env bash",
        *prepare_directives(job),
        f"# Makes shards and tokenizer of {job.name} before GPUs are asked for. Rendered; edit the experiment instead.",
        "set -euo pipefail",
        *_flags(job),
        f"exec {_boot(job, [*job.overrides, 'resources.nodes=1', '--until', 'tokenizer'])}",
    ]
    return "\n".join(lines) + "\n"


def sweep_text(job: Job, name: str, num_points: int, at_once: int) -> str:
    """Return the job script of a sweep: each task of the array becomes the job script of its point."""
    base = job.name.removesuffix("-1")
    point = f"{base}-$SLURM_ARRAY_TASK_ID"
    lines = [
        "#!/usr/bin/env bash",
        *sweep_directives(job, name, num_points, at_once),
        f"# Trains {num_points} points, {at_once} at once, each in a run folder of its own. Rendered.",
        "set -euo pipefail",
        f'cd "../{point}"',
        "# In this very process, which SLURM tells of the time limit.",
        f'exec bash "{train_script(point)}"',
    ]
    return "\n".join(lines) + "\n"


def _boot(job: Job, words: Sequence[str]) -> str:
    """Return the command that boots the run on a node; flags of the first start come last."""
    command = command_line(["bash", node_script(job.name), "boot", experiment_path(job), *words])
    return f'{command} "${{flags[@]}}"'


def _over(job: Job) -> list[str]:
    return [
        f"if [ -e {OVER} ]; then",
        f'    echo "{job.name}: this run is over already (boot ended with $(cat {OVER})); nothing left to do"',
        "    exit 0",
        "fi",
    ]


def _flags(job: Job) -> list[str]:
    """Return what gives boot's flags to the first start of a launch alone: --fresh must not meet a requeue."""
    return [
        f"flags=({command_line(job.flags)})",
        f"[ ! -e {BEGUN} ] || flags=()",
        f"touch {BEGUN}",
    ]


def _rendezvous(job: Job) -> list[str]:
    """Return what tells every node where the first one answers; a container has no scontrol to ask."""
    return [
        # Not through `head`: a scontrol that is cut short fails, and the script with it.
        'hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        f"export PET_NNODES={job.resources.nodes} PET_MASTER_ADDR=\"${{hosts%%$'\\n'*}}\"",
        f"export PET_MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID % {NUM_PORTS}))",
    ]


def _chain(job: Job) -> list[str]:
    """Return what queues the next link now, so that it gathers priority while this one trains."""
    submit = f'sbatch --parsable --dependency="afterany:$SLURM_JOB_ID" {train_script(job.name)}'
    take = f'next=$(TRAINWRIGHT_LINK="$((link + 1))" {submit})'
    return [
        *failing(job.name),
        "link=\"${TRAINWRIGHT_LINK:-1}\" next=''",
        f'if [ "$link" -lt {job.targets.slurm.links} ] && [ -z "${{SLURM_RESTART_COUNT:-}}" ]; then',
        "    " + demand(take, Exit.MISSING, "the next link of the chain was refused (see above)"),
        '    echo "link $link; the next one is job $next"',
        "fi",
    ]


def _after(job: Job) -> list[str]:
    kind = job.targets.slurm.continuation
    final = f"{Exit.OK} | {Exit.MISSING} | {Exit.REFUSED}"
    show = '"$(scontrol show job "$SLURM_JOB_ID" 2> /dev/null || true)"'
    end_others = {
        "requeue": [],
        "chain": ['[ -z "$next" ] || scancel "$next" || true'],
        "array": ['scancel --state=PENDING "$SLURM_ARRAY_JOB_ID" || true'],
        "off": [],
    }[kind]
    again = {
        "requeue": [
            f"case {show} in *JobState=RUNNING*)",
            f'    echo "{job.name}: goes on in this job\'s next start"',
            '    scontrol requeue "$SLURM_JOB_ID"',
            "esac",
        ],
        "chain": [f'echo "{job.name}: goes on in job ${{next:-none; this was the last link}}"'],
        "array": [f'echo "{job.name}: goes on in the next task of the array"'],
        "off": [f'echo "{job.name}: goes on when it is launched again"'],
    }[kind]
    return [
        "over() {",
        f'    echo "$code" > {OVER}',
        *(f"    {line}" for line in end_others),
        '    exit "$code"',
        "}",
        f'case "$code" in {final}) over ;; esac',
        f'[ "$code" = {Exit.INTERRUPTED} ] || [ "$(attempts || true)" != "$before" ] || {{',
        f'    echo "{job.name}: boot did not begin, so that nothing counts this failure; not tried again" >&2',
        "    over",
        "}",
        *([f"case {show} in *JobState=CANCELLED*) over ;; esac"] if kind in ("chain", "array") else []),
        *again,
        'exit "$code"',
    ]
