"""`python -m trainer RUN/training.yaml`: one rank of a run, by hand or under torchrun."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trainwright.spec.exits import Exit, UserError, describe_os_error, guarded
from trainwright.spec.paths import RunFolder
from trainwright.spec.resolved import read_training
from trainwright.store.process import die_with_parent

LOCAL_VARIABLES = (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train from token shards.")
    parser.add_argument("training", type=Path, help="the run's training.yaml, written by boot")
    arguments = parser.parse_args(argv)
    rank = int(os.environ.get("RANK", "0"))
    if "RANK" in os.environ:
        die_with_parent()
    _configure_logging(rank)
    training = read_training(arguments.training)
    from trainer.attempt import Attempt
    from trainer.run import run_training

    attempt = Attempt(RunFolder(training.run), rank)
    local_rank, local_ranks = (int(os.environ.get(name, one)) for name, one in LOCAL_VARIABLES)
    try:
        code: int = run_training(training, attempt, local_rank, local_ranks)
    except UserError as error:
        attempt.end(error.exit, str(error))
        raise
    except OSError as error:
        attempt.end(Exit.FAILED, describe_os_error(error))
        raise
    except Exception as error:
        # Recorded for boot, which cannot see this process's traceback, then raised for people.
        attempt.end(Exit.FAILED, f"{type(error).__name__}: {error}")
        raise
    # torchrun takes any other code of one rank as a failure and kills its neighbours while they finish.
    return Exit.OK if "TORCHELASTIC_RUN_ID" in os.environ else code


def _configure_logging(rank: int) -> None:
    """Let the first rank speak, and the others only of trouble."""
    level = logging.INFO if rank == 0 else logging.ERROR
    prefix = "" if rank == 0 else f"rank {rank}: "
    logging.basicConfig(level=level, format=f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S", stream=sys.stderr)


if __name__ == "__main__":
    sys.exit(guarded("trainer", main))
