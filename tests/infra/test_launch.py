"""A launch on this machine, from the terminal that is closed behind it to the folder that is deleted.

Two secrets are planted: one in the environment, one in `.env`. Whatever is said, written or shown in the list of
processes meanwhile is searched for them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from tiny_boot import TINY, Place, clean_environment, last_step, make_place

PLANTED = {"HF_TOKEN": "hf_planted0in0the0environment", "WANDB_API_KEY": "planted-in-dot-env-$HOME"}
TEXT = TINY.replace("steps: 100", "steps: 5000").replace("every_steps: 7", "every_steps: 5000")
TEXT = TEXT.replace("every_steps: 50,", "every_steps: 5000,") + "secrets: [HF_TOKEN, WANDB_API_KEY]\n"
PATIENCE_S = 60.0


@dataclass
class Told:
    code: int
    out: str
    err: str


@dataclass
class Story:
    """What each command of the story said, and what was seen beside it."""

    place: Place
    folder: Path
    told: dict[str, Told] = field(default_factory=dict)
    processes: set[bytes] = field(default_factory=set)
    """Every command line that any process on this machine had meanwhile."""
    environment: bytes = b""
    """That of the launched process, a moment after its launch."""
    session: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    """Every file below the folder at the end of the run, by name."""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "infra", *words]

    @property
    def environ(self) -> dict[str, str]:
        root = {"TRAINWRIGHT_ROOT": str(self.place.root), "HF_TOKEN": PLANTED["HF_TOKEN"]}
        folders = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        return {**clean_environment(), **root, **folders}

    def say(self, name: str, *words: str, **variables: str) -> Told:
        """Run one command in the folder to its end."""
        environ = {**self.environ, **variables}
        done = subprocess.run(
            self.command(*words), cwd=self.folder, env=environ, capture_output=True, text=True, timeout=90, check=False
        )
        self.told[name] = Told(done.returncode, done.stdout, done.stderr)
        return self.told[name]

    @property
    def pid(self) -> int:
        return int(json.loads((self.place.root / "launch" / "tiny" / "launch.json").read_text())["id"])

    def launched_in_a_terminal(self, *words: str) -> Told:
        """Launch in a terminal of its own, and close that once the command has ended."""
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            os.execve(sys.executable, self.command("launch", *words), self.environ)
        said = b""
        try:
            while piece := os.read(terminal, 4096):
                said += piece
        except OSError:
            pass  # Linux: nobody holds the other end any more
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(terminal)
        return Told(code, said.decode(), "")


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def watch(story: Story, stop: threading.Event) -> None:
    """Note every command line on this machine until told to stop."""
    while not stop.wait(0.05):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                story.processes.add(path.read_bytes())
            except OSError:
                continue


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    place = make_place(folder / "a root", TEXT)
    for name in ("experiments", "home", "tmp"):
        (folder / name).mkdir()
    with_corpus = TEXT.replace("data:\n", f"data:\n  path: {place.corpus}\n")
    (folder / "experiments" / "tiny.yaml").write_text(with_corpus)
    story, stop = Story(place, folder), threading.Event()
    watcher = threading.Thread(target=watch, args=(story, stop))
    watcher.start()
    try:
        tell(story)
        yield story
    finally:
        stop.set()
        watcher.join()
        for path in (place.root / "launch").glob("*/launch.json"):
            end_process(int(json.loads(path.read_text())["id"]))


def end_process(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def tell(story: Story) -> None:
    """Go through the life of a launched run; what is said is judged afterwards."""
    launch = ("tiny", "--target", "local", "seed=7")
    story.say("init", "init", "other", "--like", "tiny")
    story.say("show", "show", "tiny")
    story.say("render", "render", *launch)
    story.say("launch without a secret", "launch", *launch)
    story.told["nothing made"] = Told(int((story.place.root / "launch").exists()), "", "")
    (story.folder / ".env").write_text(f"WANDB_API_KEY='{PLANTED['WANDB_API_KEY']}'\n")
    (story.folder / ".env").chmod(0o644)
    story.say("launch with an open .env", "launch", *launch)
    (story.folder / ".env").chmod(0o600)
    story.told["launch"] = story.launched_in_a_terminal(*launch)
    story.environment = Path(f"/proc/{story.pid}/environ").read_bytes()
    story.session = os.getsid(story.pid)
    follower = subprocess.Popen(
        story.command("logs", "tiny", "-f"), cwd=story.folder, env=story.environ, stdout=subprocess.PIPE, text=True
    )
    run = story.place.run
    until(lambda: last_step(run) >= 3, "step 3")
    story.say("second launch", "launch", *launch)
    story.say("ps", "ps", "--json")
    story.say("delete while it runs", "delete", "tiny", "--all", "--yes")
    story.say("boot by hand", "boot", "tiny", "seed=7", WANDB_API_KEY=PLANTED["WANDB_API_KEY"])
    story.say("stop", "stop", "tiny", "--reason", "seen enough")
    out, _ = follower.communicate(timeout=PATIENCE_S)
    story.told["follow"] = Told(follower.returncode, out, "")
    story.say("logs", "logs", "tiny")
    story.say("ps at the end", "ps")
    story.files = {
        str(path.relative_to(story.folder)): path.read_bytes() for path in story.folder.rglob("*") if path.is_file()
    }
    story.say("delete without yes", "delete", "tiny", "--checkpoints")
    story.say("delete checkpoints", "delete", "tiny", "--checkpoints", "--yes")
    story.told["left"] = Told(0, "\n".join(sorted(path.name for path in run.path.iterdir())), "")
    story.say("delete all", "delete", "tiny", "--all", "--yes")
    story.told["nothing left"] = Told(int(run.path.exists() or (story.place.root / "launch" / "tiny").exists()), "", "")


@pytest.mark.slow
def test_a_launch_outlives_its_terminal_in_a_session_of_its_own(story: Story) -> None:
    told = story.told["launch"]
    assert told.code == 0, told.out
    assert "tiny: launched on target local (" in told.out
    assert "follow it with `trainwright logs tiny -f`" in told.out
    assert story.session == int(told.out.rpartition("(")[2].split(")")[0])


@pytest.mark.slow
def test_a_missing_secret_and_an_open_env_file_stop_a_launch_before_anything_is_made(story: Story) -> None:
    missing, opened = story.told["launch without a secret"], story.told["launch with an open .env"]
    assert (missing.code, missing.out) == (69, "")
    assert missing.err == (
        "trainwright: .env: no value for WANDB_API_KEY; add NAME=value there, or set it in the environment\n"
    )
    assert (opened.code, opened.out) == (78, "")
    assert opened.err == "trainwright: .env: others may read it (mode 0644); run chmod 600 .env\n"
    assert story.told["nothing made"].code == 0


@pytest.mark.slow
def test_a_run_that_lives_is_not_launched_again(story: Story) -> None:
    told = story.told["second launch"]
    assert (told.code, told.out) == (78, "")
    assert told.err.startswith("trainwright: tiny: is running on target local (")
    assert told.err.endswith("follow it with `trainwright logs tiny -f`, or stop it first\n")
    by_hand = story.told["boot by hand"]
    assert by_hand.code == 69
    assert "lease.json: held by boot of tiny" in by_hand.err


@pytest.mark.slow
def test_ps_shows_it_in_training_and_then_ended(story: Story) -> None:
    (row,) = json.loads(story.told["ps"].out)
    assert (row["name"], row["target"], row["state"], row["steps"]) == ("tiny", "local", "training", 5000)
    assert row["step"] >= 3
    assert row["loss"] > 0
    head, line = story.told["ps at the end"].out.splitlines()
    assert head.split() == ["RUN", "TARGET", "STEP", "LOSS", "SEEN", "STATE"]
    assert line.startswith("tiny  local")
    assert line.endswith("ended (seen enough)")


@pytest.mark.slow
def test_following_shows_all_of_the_log_and_ends_with_the_run(story: Story) -> None:
    follow, logs = story.told["follow"], story.told["logs"]
    assert (follow.code, logs.code) == (0, 0)
    assert follow.out == logs.out
    assert logs.out.splitlines()[0].partition(" ")[2].startswith("boot: source=")
    assert "stage=train ended on request" in logs.out
    assert "Traceback" not in logs.out


@pytest.mark.slow
def test_delete_shows_bytes_wants_yes_refuses_a_live_run_and_takes_what_it_is_told(story: Story) -> None:
    live = story.told["delete while it runs"]
    assert live.code == 78
    assert live.err.endswith("on target local; `trainwright stop tiny` first\n")
    checkpoints = story.place.run.checkpoints
    size = sum(
        len(data) for name, data in story.files.items() if f"{story.folder}/{name}".startswith(f"{checkpoints}/")
    )
    asked = story.told["delete without yes"]
    assert asked.code == 78
    assert f" and {checkpoints} ({size:,} bytes); add --yes to do it" in asked.err
    assert size > 10_000
    assert story.told["delete checkpoints"].code == 0
    assert "checkpoints" not in story.told["left"].out.split()
    assert {"metrics.jsonl", "experiment.yaml", "logs", "attempts"} <= set(story.told["left"].out.split())
    assert story.told["delete all"].code == 0, story.told["delete all"].err
    assert story.told["nothing left"].code == 0


@pytest.mark.slow
def test_the_launched_run_has_the_secrets(story: Story) -> None:
    for name, value in PLANTED.items():
        assert f"{name}={value}".encode() in story.environment.split(b"\0")


@pytest.mark.slow
def test_no_value_of_a_secret_is_said_written_or_listed_anywhere(story: Story) -> None:
    said = {name: str(told).encode() for name, told in story.told.items()}
    for name in ("init", "show", "render", "launch", "ps", "follow", "stop", "logs", "delete all"):
        assert story.told[name].code == 0, story.told[name]
    assert all(name.encode() in said["show"] for name in PLANTED)
    listed = {str(words): words for words in story.processes}
    assert any(b"trainer" in words for words in story.processes)
    assert PLANTED["WANDB_API_KEY"].encode() in story.files.pop(".env")
    written = {name: data + name.encode() for name, data in story.files.items()}
    assert {
        "a root/launch/tiny/boot.log",
        "a root/runs/tiny/attempts/0001/start.json",
        "a root/launch/tiny/tiny.sh",
    } <= set(written)
    for value in PLANTED.values():
        for places in (said, listed, written):
            assert [name for name, data in places.items() if value.encode() in data] == [], value
