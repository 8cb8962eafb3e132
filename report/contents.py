"""Makes the document of a report from the facts of a run."""

import re

from report.configuration import configuration
from report.corpus import Part
from report.curves import curves
from report.document import Bar, Bars, Block, Code, Column, Continuation, Document, Items, Paragraph
from report.document import Section, Table
from report.facts import Facts
from report.headline import highlights, numbers
from report.numbers import ABSENT, duration, fixed, grouped
from report.records import STAGES, Attempt, Sample
from report.verdict import judge
from trainwright.spec.exits import Exit

MAX_ROWS = 40
"""Attempts and reasons of drops that are listed; a longer list says how many it leaves out."""
MAX_SAMPLES = 5


def compose(facts: Facts) -> Document:
    """Return the whole report as data."""
    verdict = judge(facts)
    sections = (
        Section("Numbers", (numbers(facts),)),
        *_gaps(facts),
        curves(facts),
        _continuations(facts),
        configuration(facts),
        _corpus(facts),
        _tokenizer(facts),
        _time(facts),
        _reproduce(facts),
    )
    return Document(facts.name, verdict.tone, verdict.status, verdict.sentence, highlights(facts), sections)


def _gaps(facts: Facts) -> tuple[Section, ...]:
    sentences = list(facts.gaps)
    if facts.metrics.num_abandoned:
        again = f"{grouped(facts.metrics.num_abandoned)} rows of steps that were done again after a resume"
        sentences.append(f"metrics.jsonl: {again} are left out")
    return (Section("Missing or left out", (Items(tuple(sentences)),)),) if sentences else ()


def _continuations(facts: Facts) -> Section:
    samples = facts.samples[:MAX_SAMPLES]
    notes = [_sample_note(sample) for sample in samples]
    blocks: list[Block] = []
    if len(samples) > 1 and len(set(notes)) == 1:
        blocks.append(Paragraph(f"All written at {notes[0]}."))
        notes = [""] * len(notes)
    blocks += [Continuation(note, one.prompt, one.continuation) for note, one in zip(notes, samples, strict=True)]
    rest = len(facts.samples) - MAX_SAMPLES
    if rest > 0:
        blocks.append(Paragraph(f"{rest} more in samples.jsonl."))
    return Section("Continuations", tuple(blocks) or (Paragraph("The run has written no continuations."),))


def _sample_note(sample: Sample) -> str:
    step = f"step {grouped(sample.step)}" if sample.step is not None else "a step that was not recorded"
    return step + (f", temperature {sample.temperature:g}" if sample.temperature is not None else "")


def _corpus(facts: Facts) -> Section:
    parts = (("train", facts.corpus.train), ("validation", facts.corpus.val))
    columns = ("split", "documents", "text bytes", "tokens", "bytes a token", "shards")
    table = Table(
        (Column(columns[0]), *(Column(title, right=True) for title in columns[1:])),
        tuple((name, *_part_row(part)) for name, part in parts),
    )
    blocks: list[Block] = [table]
    text = facts.corpus.train.text
    if facts.experiment is not None:
        data = facts.experiment.data
        place = f" from {data.path}" if data.path else ""
        complete = "" if text is None or text.complete else " Its text shards are not complete."
        blocks.insert(0, Paragraph(f"Corpus {facts.experiment.data_name}, source {data.source.kind}{place}.{complete}"))
    if text is not None:
        blocks.append(_drops(dict(text.drops)))
        rows = tuple((key, str(value)) for key, value in sorted(text.inputs.items()))
        columns_of_inputs = (Column("input", code=True), Column("value", code=True))
        blocks.append(Table(columns_of_inputs, rows, summary="What the text shards were made from"))
    return Section("Data", tuple(blocks))


def _part_row(part: Part) -> tuple[str, ...]:
    # Tokens that were imported have no text to speak of.
    text, tokens = part.text if part.text is not None and part.text.shards else None, part.tokens
    documents = text.num_documents if text is not None else tokens.num_documents if tokens is not None else None
    ratio = text.text_bytes / tokens.num_tokens if text and tokens and tokens.num_tokens else None
    return (
        grouped(documents),
        grouped(text.text_bytes if text is not None else None),
        grouped(tokens.num_tokens if tokens is not None else None),
        fixed(ratio, 3),
        grouped(len(tokens.shards) if tokens is not None else None),
    )


def _drops(drops: dict[str, int]) -> Block:
    if not any(drops.values()):
        return Paragraph("No document was dropped.")
    rows = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    listed = tuple((reason, grouped(count)) for reason, count in rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        listed += ((f"{len(rows) - MAX_ROWS} more reasons", grouped(sum(count for _, count in rows[MAX_ROWS:]))),)
    return Table((Column("dropped because"), Column("documents or lines", right=True)), listed)


def _tokenizer(facts: Facts) -> Section:
    bundle, compression = facts.corpus.bundle, facts.corpus.compression
    if bundle is None:
        return Section("Tokenizer", (Paragraph("The tokenizer bundle could not be read."),))
    rows = [
        ("kind", bundle.kind),
        ("vocabulary", grouped(bundle.vocab_size)),
        ("special tokens", grouped(len(bundle.special_tokens))),
        ("longest token", f"{max(map(len, bundle.ranks))} bytes"),
        ("hash", bundle.hash[:16]),
    ]
    if compression is not None:
        counted = f"{compression.bytes_per_token:.3f} bytes a token"
        rows.insert(2, ("compression", f"{counted}, over {grouped(compression.num_tokens)} validation tokens"))
    return Section("Tokenizer", (Table((Column("fact"), Column("value")), tuple(rows)),))


def _time(facts: Facts) -> Section:
    blocks: list[Block] = []
    longest = max((stage.seconds or 0.0 for stage in facts.stages), default=0.0)
    if facts.stages:
        bars = [
            Bar(
                stage.name,
                (stage.seconds or 0.0) / longest if longest else 0.0,
                duration(stage.seconds),
                _moment(stage.finished),
            )
            for stage in facts.stages
        ]
        blocks.append(Bars(("stage", "time", "finished"), tuple(bars)))
    else:
        blocks.append(Paragraph("No stage has finished yet."))
    done = {stage.name for stage in facts.stages}
    # The report's own record is written after the report.
    absent = [name for name in STAGES if name not in done and name != "report"]
    if facts.stages and absent:
        blocks.append(Paragraph(f"Not recorded as done: {', '.join(absent)}."))
    if facts.attempts:
        columns = (Column("attempt"), Column("end"), Column("at step", right=True), Column("time", right=True))
        listed = facts.attempts[-MAX_ROWS:]
        blocks.append(Table((*columns, Column("reason")), tuple(_attempt_row(attempt) for attempt in listed)))
        if len(facts.attempts) > MAX_ROWS:
            blocks.append(Paragraph(f"The last {MAX_ROWS} of {len(facts.attempts)} attempts."))
    else:
        blocks.append(Paragraph("No attempt has been recorded."))
    return Section("Time", tuple(blocks))


def _moment(text: str) -> str:
    """Return a record's time for reading; anything but our own form stays as it is."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?Z$", r"\1 \2 UTC", text)


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    if not attempt.ended:
        return (attempt.name, "open", ABSENT, ABSENT, "no end record: still running when this was written, or lost")
    known = {code.value: code.name.lower() for code in Exit}
    code = ABSENT if attempt.code is None else f"{attempt.code} {known.get(attempt.code, 'failed')}"
    return (attempt.name, code, grouped(attempt.step), duration(attempt.seconds), attempt.reason)


def _reproduce(facts: Facts) -> Section:
    origin, experiment = facts.origin, facts.experiment
    rows = [("experiment hash", origin.hash), ("commit", origin.commit), ("image", origin.image)] if origin else []
    blocks: list[Block] = []
    if rows:
        table = tuple((name, value or "not recorded") for name, value in rows)
        blocks.append(Table((Column("what"), Column("value", code=True)), table))
    if experiment is None:
        return Section("How to reproduce", (*blocks, Paragraph("The experiment of this run is not known.")))
    name = f"{experiment.name}.yaml"
    advice = (
        f"At that commit, save the resolved experiment (under Configuration above) as {name} and launch it; "
        "the new run's experiment.yaml must carry the same hash."
    )
    return Section("How to reproduce", (*blocks, Paragraph(advice), Code(_commands(facts, name), "sh")))


def _commands(facts: Facts, name: str) -> str:
    commit = facts.origin.commit if facts.origin is not None else ""
    is_commit = len(commit) >= 7 and all(letter in "0123456789abcdef" for letter in commit)
    checkout = [f"git checkout {commit}"] if is_commit else []
    return "\n".join([*checkout, f"trainwright launch {name} --target local"])
