"""`python -m infra.boot EXP`: the staged boot, by `trainwright boot` or as the image's entry point."""

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Sequence

from trainwright.early import hear_no_more, obey_until_heard

log = logging.getLogger("boot")


def main(argv: Sequence[str] | None = None) -> int:
    """Boot one run; return the exit code that the target acts on."""
    arguments = _parser().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    from infra.boot.nodes import this_node
    from infra.boot.preflight import IN_IMAGE_VARIABLE, volume
    from infra.boot.run import Boot
    from infra.boot.supervise import Interrupts
    from trainwright.spec.load import find_experiment, load_experiment, split_words
    from trainwright.spec.paths import Places, root_from

    name, overrides = split_words(arguments.words)
    interrupts = Interrupts()
    path = find_experiment(name)
    loaded = load_experiment(path, overrides)
    experiment = loaded.experiment
    node = this_node(experiment.resources, arguments.node_rank, arguments.master)
    places = Places(root_from(), experiment)
    volume(places, in_image=IN_IMAGE_VARIABLE in os.environ)
    source_hash = hashlib.sha256(loaded.source.encode()).hexdigest()
    log.info("boot: source=%s sha256=%s overrides=%d", path, source_hash[:12], len(overrides))
    wishes = {"redo": arguments.redo, "go_on": arguments.go_on, "fresh": arguments.fresh}
    return Boot(experiment, places, node, interrupts, until=arguments.until, **wishes).go()


def _parser() -> argparse.ArgumentParser:
    from infra.boot.stages import STAGES
    from trainwright.spec.arguments import WordParser

    parser = WordParser(
        prog="trainwright boot",
        description="Take an experiment from text to a trained model: prepare, shard, tokenizer, train, report. "
        "Stages that are done are skipped; a run that was stopped goes on.",
        fromfile_prefix_chars="@",
    )
    words = "experiment file or name, then overrides; @FILE stands for the words in a file, one a line"
    parser.add_argument("words", nargs="*", metavar="EXP [a.b=c ...]", help=words)
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="stop after this stage")
    redo = "move this stage's output and all that follows aside, and do it again"
    parser.add_argument("--redo", choices=STAGES[1:], help=redo)
    go_on = "go on with a run that was ended or has spent its budget of tries"
    parser.add_argument("--continue", dest="go_on", action="store_true", help=go_on)
    parser.add_argument("--fresh", action="store_true", help="move the run aside (nothing is deleted) and start anew")
    parser.add_argument("--node-rank", type=int, metavar="R", help="which of resources.nodes this machine is, from 0")
    parser.add_argument("--master", metavar="HOST:PORT", help="where node 0 answers; the same on every machine")
    return parser


if __name__ == "__main__":
    # Before all that takes time to import; `Interrupts` hears from then on.
    obey_until_heard("boot")
    from trainwright.spec.exits import guarded
    from trainwright.store.process import die_with_boot

    # Nobody's child by itself; the boots of a drill end with it.
    die_with_boot()
    exit_code = guarded("boot", main)
    hear_no_more()
    sys.exit(exit_code)
