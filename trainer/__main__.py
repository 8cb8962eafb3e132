"""`python -m trainer RUN/training.yaml`: one rank of a run, by hand or under torchrun."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trainwright.early import hear_no_more, obey_until_heard

log = logging.getLogger("trainer")

LOCAL_VARIABLES = (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))


def die_with_agent() -> None:
    """Die with the process that launched this rank; by hand there is none.

    Our own agent names itself, so that a rank which it started a moment before its own death notices that too.
    """
    from trainwright.spec.variables import PARENT_VARIABLE
    from trainwright.store.process import die_with_boot, die_with_parent

    if PARENT_VARIABLE in os.environ:
        die_with_boot()
    elif "RANK" in os.environ:
        die_with_parent()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank; return its exit code."""
    die_with_agent()
    from trainwright.spec.arguments import WordParser
    from trainwright.spec.exits import Exit, UserError, describe_os_error
    from trainwright.spec.paths import RunFolder
    from trainwright.spec.resolved import read_training

    parser = WordParser(prog="python -m trainer", description="Train from token shards.")
    parser.add_argument("training", type=Path, help="the run's training.yaml, written by boot")
    arguments = parser.parse_args(argv)
    rank = int(os.environ.get("RANK", "0"))
    _configure_logging(rank)
    training = read_training(arguments.training)
    from trainer.attempt import Attempt
    from trainer.run import run_training

    attempt = Attempt(RunFolder(training.run), rank)
    local_rank, local_ranks = (int(os.environ.get(name, one)) for name, one in LOCAL_VARIABLES)
    try:
        code: int = run_training(training, attempt, local_rank, local_ranks)
    except UserError as error:
        if attempt.end(error.exit, str(error)):
            # Every rank knows the same sentence; boot reads it in the records, and says it once.
            return error.exit
        raise
    except OSError as error:
        if attempt.end(Exit.FAILED, describe_os_error(error)):
            return Exit.FAILED
        raise
    except Exception as error:
        # One sentence here and in the record: when a rank dies, each of its neighbours has a traceback of its own.
        words = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
        attempt.end(Exit.FAILED, words)
        written = attempt.explain(error)
        if written is None:
            raise
        log.error("%s; traceback in %s", words, written)  # noqa: TRY400 - the traceback is in the file
        return Exit.FAILED
    # torchrun takes any other code of one rank as a failure and kills its neighbours while they finish.
    return Exit.OK if "TORCHELASTIC_RUN_ID" in os.environ else code


def _configure_logging(rank: int) -> None:
    """Let the first rank speak, and the others only of trouble."""
    level = logging.INFO if rank == 0 else logging.ERROR
    prefix = "" if rank == 0 else f"rank {rank}: "
    logging.basicConfig(level=level, format=f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S", stream=sys.stderr)


if __name__ == "__main__":
    # Before all that takes seconds to import; `Requests` hears from then on.
    obey_until_heard("trainer")
    from trainwright.spec.exits import guarded

    exit_code = guarded("trainer", main)
    hear_no_more()
    sys.exit(exit_code)
