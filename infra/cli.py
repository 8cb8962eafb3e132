"""The command line: a table of words. Words of other rooms are passed on whole, so their help is their own."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import assets, words
from infra.copies import copy
from infra.parsers import say_followed, word_parser
from infra.rooms import become
from infra.runpod.words import runpod
from infra.runs import find_run
from infra.slurm.here import with_site
from infra.sweep import sweep
from trainwright import __version__
from trainwright.spec.exits import Exit, UserError, guarded
from trainwright.spec.load import Loaded, find_experiment, load_experiment, split_words
from trainwright.spec.sites import SITES
from trainwright.spec.paths import ROOT_VARIABLE, RunFolder, root_from

EXPERIMENT_WORDS = "EXP [a.b=c ...]"


@dataclass(frozen=True, slots=True)
class Word:
    """One word of the command line: a line of help, and what runs with the arguments after it."""

    help: str
    run: Callable[[Sequence[str]], int]


def entry() -> None:
    """Run the command line and exit with its code."""
    sys.exit(guarded("trainwright", lambda: main(sys.argv[1:])))


def main(argv: Sequence[str]) -> int:
    """Run one word; return its exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_page())
        return Exit.OK if argv else Exit.REFUSED
    if argv[0] == "--version":
        print(f"trainwright {__version__}")
        return Exit.OK
    if argv[0] not in WORDS:
        raise UserError(f"{argv[0]}: no such word; `trainwright --help` lists them")
    return WORDS[argv[0]].run(argv[1:])


def _page() -> str:
    lines = [
        "usage: trainwright WORD ...",
        "",
        "One experiment file, the same pretraining run everywhere. Words:",
        "",
        *(f"  {name:<10} {word.help}" for name, word in WORDS.items()),
        "",
        "`trainwright WORD --help` says more. EXP is an experiment file, or a name in ./experiments.",
    ]
    return "\n".join(lines)


def show(argv: Sequence[str]) -> int:
    """Print the resolved experiment with each value's origin, and the numbers derived from it."""
    from trainwright.spec.derived import Derived
    from trainwright.spec.resolved import experiment_hash, flat, plain

    parser = word_parser("show", "Print the resolved experiment, where each value came from, and what follows from it.")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments, loaded = _with_experiment(parser, argv)
    follows, tree = Derived(loaded.experiment), plain(loaded.experiment)
    derived = follows.facts()
    if arguments.json:
        origins = {path: loaded.origin(path) for path, _ in flat(tree)}
        document = {"hash": experiment_hash(loaded.experiment), "experiment": tree, "derived": derived}
        print(json.dumps({**document, "model": follows.dimension_lines(), "origins": origins}, indent=1))
        return Exit.OK
    print(_show_page(loaded, dict(flat(tree)), derived))
    print("\n".join(["", "Model:", *follows.dimension_lines()]))
    return Exit.OK


def _show_page(loaded: Loaded, values: dict[str, object], derived: dict[str, int | float]) -> str:
    shown = {path: _plain_text(value) for path, value in values.items()}
    wide = max(map(len, shown))
    long = max(map(len, shown.values()))
    lines = [f"{path:<{wide}}  {text:<{long}}  {loaded.origin(path)}" for path, text in shown.items()]
    numbers = [f"{name:<{wide}}  {_number(value)}" for name, value in derived.items()]
    return "\n".join([*lines, "", "Derived:", *numbers])


def _plain_text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"


def schema(argv: Sequence[str]) -> int:
    """Print the JSON Schema of experiment files."""
    from trainwright.spec.experiment import Experiment

    word_parser("schema", "Print the JSON Schema of experiment files, for editors.").parse_args(argv)
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema()}
    print(json.dumps(document, indent=1))
    return Exit.OK


def init(argv: Sequence[str]) -> int:
    """Write a valid, commented experiment file."""
    from infra.init import commented_experiment, for_checkpoint, renamed
    from trainwright.spec.load import validate
    from trainwright.store.files import write_text

    parser = word_parser("init", "Write a valid, commented experiment file into ./experiments.")
    parser.add_argument("name", help="the new experiment's name")
    parser.add_argument("--like", metavar="EXP", help="start from this experiment instead of the defaults")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="go on training this Hugging Face checkpoint")
    arguments = parser.parse_args(argv)
    validate({"name": arguments.name, "train": {"steps": "1", "global_batch_sequences": "8"}}, "init")
    path = Path("experiments") / f"{arguments.name}.yaml"
    if path.exists():
        raise UserError(f"{path}: exists already; choose another name, or delete it")
    if arguments.checkpoint:
        text = for_checkpoint(arguments.name, arguments.checkpoint)
    elif arguments.like:
        text = renamed(find_experiment(arguments.like), arguments.name)
    else:
        text = commented_experiment(arguments.name)
    write_text(path, text)
    print(f"{path}: written; try `trainwright show {arguments.name}`")
    return Exit.OK


def plan(argv: Sequence[str]) -> int:
    """Print what a run comes to: derived numbers with their formulas, memory, disk, hours, dollars."""
    from infra.plan import chosen_gpu, plan_json, plan_page
    from infra.targets import TARGETS
    from trainwright.spec.derived import Derived

    parser = word_parser("plan", "Print each derived number with its formula, memory per GPU, disk, hours and dollars.")
    parser.add_argument("--target", choices=sorted(TARGETS), help="plan for the GPU that this target gives")
    parser.add_argument("--gpu", metavar="NAME", help="plan for this GPU, such as H100 or A100-40GB")
    parser.add_argument("--mfu", type=_share, default=0.4, help="share of its peak that training reaches (0.4)")
    parser.add_argument("--dollars", type=float, metavar="PRICE", help="price of one GPU for an hour")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    arguments, loaded = _with_experiment(parser, argv)
    derived = Derived(loaded.experiment)
    gpu = chosen_gpu(loaded.experiment, arguments.gpu, arguments.target)
    show_as = plan_json if arguments.json else plan_page
    print(show_as(derived, gpu, arguments.mfu, arguments.dollars))
    return Exit.OK


def _share(text: str) -> float:
    """Read a share above 0 and at most 1."""
    share = float(text)
    if not 0 < share <= 1:
        raise ValueError(text)
    return share


def render(argv: Sequence[str]) -> int:
    """Print or write the exact files that launch would send."""
    from infra.job import build_job, movable_image
    from infra.shell import command_line
    from infra.submit import stale, write_rendered
    from infra.targets import TARGETS

    parser = word_parser("render", "Print the exact files that launch would send, or write them to a folder.")
    parser.add_argument("--target", required=True, choices=sorted(TARGETS))
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write the files here")
    parser.add_argument("--check", action="store_true", help="only say whether the files in DIR are up to date")
    _add_job_flags(parser)
    arguments, loaded = _with_experiment(parser, argv)
    target, job = TARGETS[arguments.target], build_job(loaded, _boot_flags(arguments))
    files = target.render(job)
    if problem := movable_image(target.image_of(job)):
        print(f"warning: {problem}", file=sys.stderr)
    if arguments.check:
        if arguments.output is None:
            raise UserError("render --check: needs the folder to check; add -o DIR")
        if old := stale(files, arguments.output):
            again = command_line(["trainwright", "render", *(word for word in argv if word != "--check")])
            raise UserError(f"{arguments.output}: not up to date: {', '.join(old)}; run `{again}`")
        print(f"{arguments.output}: up to date")
    elif arguments.output is not None:
        write_rendered(files, arguments.output)
        print("\n".join(str(arguments.output / file.path) for file in files))
    else:
        print("\n".join(f"# --- {file.path}\n{file.text}" for file in files))
    return Exit.OK


def launch(argv: Sequence[str]) -> int:
    """Send what render shows."""
    from infra.engine import Engine
    from infra.job import build_job
    from infra.plan import refuse_what_does_not_fit
    from infra.secret_values import values_for
    from infra.submit import submit
    from infra.targets import TARGETS

    parser = word_parser("launch", "Send exactly what render shows, and start it.")
    parser.add_argument("--target", required=True, choices=sorted(TARGETS))
    parser.add_argument("--force", action="store_true", help="send it even if it does not fit the GPU's memory")
    _add_job_flags(parser)
    arguments, loaded = _with_experiment(parser, argv)
    if not arguments.force:
        refuse_what_does_not_fit(loaded.experiment, arguments.target)
    job, root = build_job(loaded, _boot_flags(arguments)), root_from()
    engine = Engine({ROOT_VARIABLE: str(root), **values_for(arguments.target, job.secrets)})
    sent = submit(arguments.target, job, root, engine)
    print(
        f"{sent.name}: launched on target {sent.target} ({sent.id}); follow it with `trainwright logs {sent.name} -f`"
    )
    return Exit.OK


def drill(argv: Sequence[str]) -> int:
    """Rehearse a preemption."""
    from infra.drill import drill as rehearse

    return rehearse(argv)


def _room(room: str, *first: str) -> Callable[[Sequence[str]], int]:
    def run(argv: Sequence[str]) -> int:
        become(room, [*first, *argv])
        raise AssertionError

    return run


def _room_with_run(room: str, file: Callable[[RunFolder], Path]) -> Callable[[Sequence[str]], int]:
    """Pass a word on with a run's name, its first word, turned into the file or folder that the room reads."""

    def run(argv: Sequence[str]) -> int:
        words = list(argv)
        at = next((index for index, word in enumerate(words) if not word.startswith("-")), None)
        if at is not None and not Path(words[at]).is_file():
            words[at] = str(file(find_run(words[at], root_from())))
        become(room, words)
        raise AssertionError

    return run


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    go_on = "go on with a run that was ended or has spent its budget of tries"
    parser.add_argument("--continue", dest="go_on", action="store_true", help=go_on)
    parser.add_argument("--fresh", action="store_true", help="move the run aside (nothing is deleted) and start anew")
    parser.add_argument("--from", dest="from_run", metavar="RUN", help="start from another run's newest weights")


def _boot_flags(arguments: argparse.Namespace) -> list[str]:
    return ["--continue"] * arguments.go_on + ["--fresh"] * arguments.fresh


def _with_experiment(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, Loaded]:
    """Parse a word that takes an experiment and overrides, and load it."""
    help_text = "experiment file or name in ./experiments, then overrides such as train.steps=100"
    parser.add_argument("words", nargs="*", metavar=EXPERIMENT_WORDS, help=help_text)
    arguments = parser.parse_intermixed_args(argv)
    name, overrides = split_words(arguments.words)
    if getattr(arguments, "from_run", None):
        overrides = (*overrides, f"train.init_from={arguments.from_run}")
    loaded = load_experiment(find_experiment(name), overrides, sites=SITES)
    say_followed(name, loaded)
    return arguments, with_site(loaded, name) if getattr(arguments, "target", None) == "slurm" else loaded


WORDS = {
    "init": Word("a valid, commented experiment file", init),
    "show": Word("the resolved experiment, the origin of each value, and the derived numbers", show),
    "schema": Word("JSON Schema of experiment files, for editors", schema),
    "plan": Word("derived numbers with their formulas, memory per GPU, disk, hours, dollars", plan),
    "render": Word("the exact files that launch would send", render),
    "launch": Word("send what render shows, and start it", launch),
    "fetch": Word("download all that an experiment needs, for nodes without internet", assets.fetch),
    "check": Word("what of that is here, verified, without a network", assets.check),
    "copy": Word("a verified copy between a folder, s3:// and a volume at RunPod", copy),
    "sweep": Word("a grid of runs, each with a folder of its own", sweep),
    "ps": Word("the runs here, and what was launched from here", words.ps),
    "logs": Word("what a launched run says; -f follows it", words.logs),
    "stop": Word("end a run: save, finish, and stay ended", words.stop),
    "delete": Word("remove a run's job; with a flag what it has written", words.delete),
    "runpod": Word("pods, clusters and volumes at RunPod", runpod),
    "doctor": Word("the health of this machine and its run", _room("infra.boot.doctor")),
    "drill": Word("rehearse how a target ends runs, on a short run of an experiment", drill),
    "boot": Word("the staged boot: prepare, shard, tokenizer, train, report", _room("infra.boot")),
    "shard": Word("text shards from a source", _room("sharder", "shard")),
    "tokenizer": Word("find or train the tokenizer", _room("sharder", "tokenizer")),
    "encode": Word("token shards from text shards", _room("sharder", "encode")),
    "import": Word("a corpus from the token files of other projects", _room("sharder", "import")),
    "train": Word("one rank of training, by hand", _room_with_run("trainer", lambda run: run.training_yaml)),
    "export": Word("a run's weights as a Hugging Face folder", _room_with_run("trainer.export", lambda run: run.path)),
    "report": Word("report.md and report.html of a run", _room_with_run("report", lambda run: run.path)),
}
"""Every word, in the order of the help page."""
