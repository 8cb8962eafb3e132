"""`python -m sharder`: the stages shard, tokenizer and encode, for boot and by hand."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sharder.flags import add_flags, corpus_named, experiment_of
from trainwright.spec.arguments import WordParser
from trainwright.spec.exits import Exit, UserError, guarded
from trainwright.spec.load import find_experiment, split_words
from trainwright.spec.paths import Places, root_from
from trainwright.spec.resolved import open_experiment
from trainwright.store.process import die_with_boot

WORDS_HELP = (
    "an experiment file, a name in ./experiments or a run's experiment.yaml (default: RUN_CONFIG), "
    "then values on top of it, such as data.workers=4"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage and print one line of facts last on stdout; return the exit code."""
    # Our own log lines only: the libraries under us report requests and retries, and their errors as exceptions too.
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("sharder")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    return guarded("sharder", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    from sharder.progress import facts_line
    from sharder.stop import obey_signals, over

    arguments = _parser().parse_args(argv)
    obey_signals()
    try:
        print(facts_line(_work(arguments)), flush=True)
    finally:
        over()
    return Exit.OK


def _work(arguments: argparse.Namespace) -> dict[str, object]:
    if arguments.word == "encode" and (arguments.input or arguments.tokenizer or arguments.output):
        return _encode_by_hand(arguments)
    if arguments.word == "shard":
        return _shard(arguments)
    if arguments.word == "import":
        return _import(arguments)
    from sharder import encode, tokenizer

    stages: dict[str, Callable[[Places], dict[str, object]]] = {"tokenizer": tokenizer.run, "encode": encode.run}
    name, overrides = split_words(arguments.words)
    experiment = open_experiment(find_experiment(name), overrides)
    if arguments.word == "tokenizer" and arguments.evaluate:
        from sharder import compare

        return compare.run(Places(root_from(), experiment))
    return stages[arguments.word](Places(root_from(), experiment))


def _import(arguments: argparse.Namespace) -> dict[str, object]:
    from sharder import tokenfiles

    given, root = Path(arguments.input), root_from()
    if arguments.name is not None:
        return tokenfiles.run_corpus(given, arguments.tokenizer, Places(root, corpus_named(arguments.name)))
    return tokenfiles.run(given, arguments.tokenizer, Path(arguments.output), root)


def _shard(arguments: argparse.Namespace) -> dict[str, object]:
    from sharder import shard
    from sharder.plan import Part

    part = Part.parse(arguments.part) if arguments.part is not None else Part()
    return shard.run(Places(root_from(), experiment_of(arguments, arguments.words)), part)


def _encode_by_hand(arguments: argparse.Namespace) -> dict[str, object]:
    from sharder import byhand

    given = {"--input": arguments.input, "--tokenizer": arguments.tokenizer, "--output": arguments.output}
    if missing := [name for name, value in given.items() if value is None]:
        raise UserError(f"encode: {' and '.join(missing)} missing; by hand it needs --input, --tokenizer and --output")
    if arguments.words:
        raise UserError(f"encode: {arguments.words[0]} cannot go with --input; give an experiment or a path, not both")
    return byhand.run(
        Path(arguments.input), arguments.tokenizer, Path(arguments.output), root_from(), arguments.workers
    )


def _parser() -> argparse.ArgumentParser:
    # @FILE stands for the words in a file, one a line: of an array of pods, each finds its --part in one.
    parser = WordParser(prog="python -m sharder", description="Text in, shards out.", fromfile_prefix_chars="@")
    words = parser.add_subparsers(dest="word", required=True, metavar="shard|tokenizer|encode|import")
    pages = {
        "shard": "Write text shards from data.source into datasets/{train,val}/NAME, once; resumes where it stopped.",
        "tokenizer": "Find the tokenizer (given, in the run, shared) or make it, in artifacts/tokenizer/NAME.",
        "encode": "Encode the text shards with the tokenizer into tokens-HASH8/, one token shard a text shard.",
    }
    for word, page in pages.items():
        sub = words.add_parser(word, help=page, description=page)
        sub.add_argument("words", nargs="*", metavar="EXP a.b=c", help=WORDS_HELP)
    page = "Bring token files of other projects (train.bin, llm.c, datatrove's .ds) into our layout, with a manifest."
    foreign = words.add_parser("import", help=page, description=page)
    foreign.add_argument("--input", required=True, metavar="PATH", help="a token file, or a folder of them")
    foreign.add_argument("--tokenizer", required=True, metavar="NAME", help="the bundle that made them, as for encode")
    where = foreign.add_mutually_exclusive_group(required=True)
    where.add_argument("--name", metavar="NAME", help="a corpus of both splits, for experiments with data.name=NAME")
    where.add_argument("--output", metavar="DIR", help="a folder for the token shards of one split")
    add_flags(words.choices["shard"])
    words.choices["shard"].usage = "%(prog)s [EXP] [a.b=c ...] [flags]"
    page = "compare it with GPT-2's and GPT-4's: bytes a token, and whether texts come back"
    words.choices["tokenizer"].add_argument("--evaluate", action="store_true", help=page)
    hand = words.choices["encode"].add_argument_group("by hand, without an experiment")
    hand.add_argument("--input", metavar="PATH", help="a folder of text shards, or one .jsonl or .txt file")
    hand.add_argument("--tokenizer", metavar="NAME", help="a bundle folder, its name below the root, bytes or gpt2")
    hand.add_argument("--output", metavar="DIR", help="the folder of the token shards")
    hand.add_argument("--workers", type=int, default=0, metavar="N", help="processes; 0 is one for each processor")
    return parser


if __name__ == "__main__":
    die_with_boot()
    sys.exit(main())
