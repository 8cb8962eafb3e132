"""Laws about whole reports, made from run folders with real shards, manifests and a real tokenizer."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_run import edit_lines, lines, make_run, metric_rows, write

from report import write_report
from report.facts import read_facts
from report.verdict import judge
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.paths import RunFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    make_run(root, steps=120, total=120)
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunFolder:
    """Return a complete run of its own; the data it names stay where they were made."""
    shutil.copytree(made / "runs" / "tiny-stdlib", tmp_path / "tiny-stdlib")
    return RunFolder(tmp_path / "tiny-stdlib")


def report_of(run: RunFolder) -> tuple[str, str]:
    write_report(run)
    return run.report_md.read_text(encoding="utf-8"), run.report_html.read_text(encoding="utf-8")


def status(run: RunFolder) -> str:
    return judge(read_facts(run)).status


def test_the_same_inputs_give_the_same_bytes_in_every_process(run: RunFolder) -> None:
    first = report_of(run)
    command = [sys.executable, "-m", "report", str(run)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": "7"}, timeout=60)
    assert done.stderr == ""
    assert (run.report_md.read_text(encoding="utf-8"), run.report_html.read_text(encoding="utf-8")) == first


def test_a_complete_run_has_no_gaps_and_says_how_good_it_got(run: RunFolder) -> None:
    markdown, page = report_of(run)
    for text in (markdown, page):
        assert "Missing or left out" not in text
        assert "All 120 steps are done; " in text
        assert re.search(r"\d\.\d{4} bits per byte on validation, \d\d\.\d% of step 0", text)
        assert "bytes a token, over 1,022 validation tokens" in text


def test_the_page_loads_nothing(run: RunFolder) -> None:
    _, page = report_of(run)
    assert not re.search(r"<(script|link|img|iframe|object|embed|base|form|image|foreignobject)\b", page, re.IGNORECASE)
    assert not re.search(r"\b(src|srcset|action|poster|data|xmlns|on\w+)\s*=", page, re.IGNORECASE)
    assert not re.search(r"@import|url\((?!#)|https?://", page)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))


def test_everything_from_files_is_escaped(run: RunFolder) -> None:
    evil = "<script>alert('x')</script> </pre> ```` ![a](http://b.invalid/c) \x1b[31m \ud800"
    write(run.samples, lines([{"prompt": evil, "continuation": evil, "step": 1, "temperature": 0.5}]))
    write(run.attempts / "0002" / "end.json", json.dumps({"code": 1, "reason": f"a|b\n{evil}", "step": 1}))
    write(run.stage("shard"), json.dumps({"seconds": 1, "finished": evil}))
    write(run.ended, json.dumps({"reason": evil}))
    edit_lines(
        run.experiment, lambda text: [f"commit: {json.dumps(evil)}" if "commit:" in line else line for line in text]
    )
    run.stage("train").unlink()
    edit_lines(run.metrics, lambda rows: rows[:50])
    markdown, page = report_of(run)
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;") >= 5
    assert "\x1b" not in page + markdown
    outside_fences = re.sub(r"(?ms)^(`{3,})\w*$.*?^\1$", "", markdown)
    outside_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside_fences.replace("\\`", ""))
    assert "<" not in outside_code
    assert "![a](" not in outside_code
    assert "git checkout" not in page


@pytest.mark.parametrize(
    "name", ["experiment.yaml", "training.yaml", "metrics.jsonl", "samples.jsonl", "stages", "attempts"]
)
def test_a_missing_piece_is_said_and_not_fatal(run: RunFolder, name: str) -> None:
    path = run.path / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    markdown, page = report_of(run)
    sayings = {"stages": "No stage has finished yet.", "attempts": "No attempt has been recorded."}
    assert sayings.get(name, f"{name}: ") in markdown
    assert sayings.get(name, f"{name}: ") in page


def test_a_stage_without_a_record_is_said(run: RunFolder) -> None:
    run.stage("train").unlink()
    assert "Not recorded as done: train." in report_of(run)[0]


def test_missing_data_are_said_and_not_fatal(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=5, total=5)
    shutil.rmtree(tmp_path / "datasets")
    shutil.rmtree(tmp_path / "artifacts")
    markdown, _ = report_of(run)
    for what in ("training tokens", "training text", "validation tokens", "validation text", "tokenizer bundle"):
        assert f"- {what}: " in markdown


def test_records_cut_at_any_place_are_said_and_not_fatal(run: RunFolder) -> None:
    names = ("experiment.yaml", "training.yaml", "samples.jsonl", "stages/train.json", "attempts/0002/end.json")
    for name in names:
        path = run.path / name
        whole = path.read_bytes()
        for size in (0, 1, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:size])
            assert size == 0 or read_facts(run).gaps, (name, size)
        path.write_bytes(whole)


def test_broken_lines_of_metrics_are_counted_and_said(run: RunFolder) -> None:
    edit_lines(run.metrics, lambda rows: [*rows[:30], "{", *rows[30:], '{"step": 121, "lo'])
    markdown, page = report_of(run)
    for text in (markdown, page):
        assert "metrics.jsonl: 2 lines are no row of figures and left out" in text


def test_steps_done_again_are_said(run: RunFolder) -> None:
    edit_lines(run.metrics, lambda rows: [*rows[:51], *rows[41:]])
    assert "10 rows of steps that were done again after a resume are left out" in report_of(run)[0]


def test_a_loss_that_is_no_number_is_said(run: RunFolder) -> None:
    rows = metric_rows(20, 120)
    rows[7]["loss"] = float("nan")
    write(run.metrics, lines(rows))
    assert "metrics.jsonl: 1 step has no finite loss, the first is step 7" in report_of(run)[0]


def test_batches_that_were_passed_over_are_said(run: RunFolder) -> None:
    for step, refused in ((60, [320]), (120, [320, 640])):
        state = {"step": step, "refused": refused, "rollbacks": step // 60 - 1}
        write(run.checkpoints / f"step_{step:08d}" / "train_state.json", json.dumps(state))
    sentence = "2 batches were passed over for a loss or gradient that is no finite number (the first at sample 320)"
    for text in report_of(run):
        assert f".json: {sentence}; 1 return to a checkpoint" in text


def test_a_run_that_passed_nothing_over_says_nothing_of_it(run: RunFolder) -> None:
    state = {"step": 120, "refused": [], "rollbacks": 0}
    write(run.checkpoints / "step_00000120" / "train_state.json", json.dumps(state))
    assert "Missing or left out" not in report_of(run)[0]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_run_without_figures_has_a_report(run: RunFolder, text: str) -> None:
    write(run.metrics, text)
    run.stage("train").unlink()
    markdown, page = report_of(run)
    for report in (markdown, page):
        assert "No training step has been recorded; no evaluation has been recorded." in report
        assert "there is nothing to draw" in report
    assert "<svg" not in page


def test_a_run_of_one_step_has_curves(run: RunFolder) -> None:
    write(run.metrics, lines(metric_rows(1, 120)))
    assert report_of(run)[1].count("<svg") == 6


def test_the_verdict_follows_the_records(run: RunFolder) -> None:
    assert status(run) == "Complete"
    run.stage("train").unlink()
    edit_lines(run.metrics, lambda rows: rows[:60])
    for end, expected in (({"code": 75}, "Interrupted"), ({"code": 1}, "Failed"), ({"code": 78}, "Failed")):
        write(run.attempts / "0002" / "end.json", json.dumps(end))
        assert status(run) == expected
    (run.attempts / "0002" / "end.json").unlink()
    assert status(run) == "Unfinished"
    write(run.ended, '{"reason": "budget spent"}')
    assert status(run) == "Ended"


def test_a_record_of_training_does_not_hide_steps_that_are_still_to_do(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=5, total=9)
    write(run.stage("train"), '{"stage": "train", "seconds": 1}')
    assert status(run) == "Interrupted"


def test_a_share_of_step_0_is_not_claimed_without_step_0(run: RunFolder) -> None:
    edit_lines(run.metrics, lambda rows: rows[1:])
    markdown, page = report_of(run)
    assert "of step 0" not in markdown
    assert "of step 0" not in page


def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        command = [sys.executable, "-m", "report", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == Exit.REFUSED
        assert done.stderr.count("\n") == 1
        assert str(path) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_edited_experiment_is_not_shown_as_the_runs_own(run: RunFolder) -> None:
    edit_lines(run.experiment, lambda text: [line.replace("lr: 0.002", "lr: 0.004") for line in text])
    markdown, _ = report_of(run)
    assert "was edited by hand" in markdown
    assert "| `optimizer.lr`" in markdown
    assert "0.004" not in markdown


def test_a_long_run_makes_a_page_of_bounded_size(run: RunFolder) -> None:
    write(run.metrics, lines(metric_rows(20_000, 20_000)))
    assert len(report_of(run)[1]) < 600_000


def test_the_report_needs_no_torch(run: RunFolder) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom report.__main__ import main\nsys.exit(main([sys.argv[1]]))"
    subprocess.run([sys.executable, "-c", code, str(run)], check=True, capture_output=True, timeout=60)


def test_no_folder_is_refused_because_it_is_young(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    write_report(RunFolder(tmp_path))
    (tmp_path / "stages").rmdir()
    with pytest.raises(UserError, match="no run folder"):
        write_report(RunFolder(tmp_path))
