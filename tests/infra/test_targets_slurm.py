"""The rendered scripts: their text, the judgement of shellcheck, and what bash does with them and with exit codes."""

from collections.abc import Callable, Mapping
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import yaml

from infra.job import Job
from infra.targets import TARGETS, slurm
from infra.targets.slurm import image_of, render
from recorder import IMAGE, a_job
from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Resources
from trainwright.spec.slurm import SlurmTarget
from trainwright.spec.targets import Targets

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden")
PROFILES = sorted(path for path in (ROOT / "experiments/sites").glob("*.yaml") if path.name != "local.yaml")
GPUS = Resources(nodes=2, ranks_per_node=4, walltime_minutes=180)
HARD = ("a b", "it's", 'say "x"', "$(touch x)", "`x`", "$HOME", "*", "a;b", "# x", "", "é")


def slurm_job(settings: Mapping[str, Any] | None = None, **changes: Any) -> Job:
    return a_job(**{"resources": GPUS, "targets": Targets(slurm=SlurmTarget(**settings or {})), **changes})


def profile(path: Path) -> dict[str, Any]:
    block: dict[str, Any] = yaml.safe_load(path.read_text())["slurm"]
    return {**block, "site": path.stem, "account": "def-someone"}


def texts(job: Job) -> dict[str, str]:
    return {file.path: file.text for file in render(job)}


def slurm_profiles() -> list[Path]:
    return [path for path in PROFILES if "slurm" in yaml.safe_load(path.read_text())]


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", slurm_profiles(), ids=lambda path: path.stem)
def test_every_profile_renders_the_recorded_text(path: Path, golden: Callable[[Path, str], None]) -> None:
    found = texts(slurm_job(profile(path)))
    whole = "\n".join(f"# --- {name}\n{text}" for name, text in found.items())
    golden(GOLDEN / f"slurm-{path.stem}.txt", whole)


VARIANTS: dict[str, dict[str, Any]] = {
    "chain": {"continuation": "chain"},
    "array": {"continuation": "array", "mail_user": "me@example.org", "internet": False},
    "venv": {"container": "off", "modules": ["gcc", "arrow/21.0.0"], "scratch": "$SLURM_TMPDIR"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_renders_the_recorded_text(name: str, golden: Callable[[Path, str], None]) -> None:
    found = texts(slurm_job(VARIANTS[name], folders=("/data/text",), resources=Resources(ranks_per_node=1)))
    golden(GOLDEN / f"slurm-variant-{name}.txt", "\n".join(f"# --- {path}\n{text}" for path, text in found.items()))


@pytest.mark.parametrize("settings", [*map(profile, slurm_profiles()), *VARIANTS.values()], ids=str)
@pytest.mark.parametrize("overrides", [(), tuple(f"data.name={word}" for word in HARD)], ids=["plain", "hard"])
def test_bash_and_shellcheck_accept_every_script(
    tmp_path: Path, settings: dict[str, Any], overrides: tuple[str, ...]
) -> None:
    scripts = []
    for name, text in texts(slurm_job(settings, overrides=overrides, secrets=("HF_TOKEN", "B"))).items():
        (tmp_path / name).write_text(text)
        scripts += [str(tmp_path / name)] if not name.endswith(".yaml") else []
    # With hard words, remarks that nothing expands in single quotes: which is what they are there for.
    severity = ["--severity=warning"] if overrides else []
    shellcheck = str(Path(sys.executable).with_name("shellcheck"))
    for command in ([shellcheck, *severity, *scripts], *(["bash", "-n", script] for script in scripts)):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def directives(job: Job) -> list[str]:
    return re.findall(r"^#SBATCH (.*)$", texts(job)["small.sbatch"], re.MULTILINE)


def test_gpus_are_asked_for_in_the_sites_own_spelling() -> None:
    assert "--gpus-per-node=h100:4" in directives(slurm_job({"gpu_type": "h100"}))
    assert "--gres=gpu:4" in directives(slurm_job({"gpu_flag": "gres"}))
    assert "--gres=gpu:a100:4" in directives(slurm_job({"gpu_flag": "gres", "gpu_type": "a100"}))
    assert "gpu" not in " ".join(directives(slurm_job(resources=Resources(device="cpu"))))


def test_what_the_experiment_says_goes_before_the_sites_own_measure() -> None:
    site = {"cpus_per_gpu": 12, "whole_memory": True, "walltime_minutes": 60}
    assert {"--cpus-per-task=48", "--mem=0", "--time=180"} <= set(directives(slurm_job(site)))
    said = Resources(ranks_per_node=4, cpus_per_node=16, memory_gib=256)
    assert {"--cpus-per-task=16", "--mem=262144M", "--time=60"} <= set(directives(slurm_job(site, resources=said)))


def test_each_way_to_go_on_has_its_own_words() -> None:
    assert "--requeue" in directives(slurm_job())
    assert "--array=1-10%1" in directives(slurm_job({"continuation": "array"}))
    assert "sbatch --parsable --dependency" in texts(slurm_job({"continuation": "chain"}))["small.sbatch"]


def test_mail_is_handed_to_slurm() -> None:
    found = directives(slurm_job({"mail_user": "me@example.org"}))
    assert {"--mail-user=me@example.org", "--mail-type=BEGIN,END,FAIL"} <= set(found)


def test_a_lead_as_long_as_the_job_is_refused() -> None:
    with pytest.raises(UserError, match=r"^targets.slurm.signal_lead_seconds=300: is as long as the whole job"):
        render(slurm_job(resources=Resources(walltime_minutes=5)))


def test_a_site_that_needs_an_account_says_where_to_write_it() -> None:
    with pytest.raises(UserError, match=r"^targets.slurm.account: narval refuses .*local.yaml$"):
        render(slurm_job({"site": "narval", "needs_account": True}))


def test_an_image_or_a_sif_is_needed() -> None:
    assert image_of(slurm_job()) == IMAGE
    assert image_of(slurm_job({"sif": "/x.sif"})) is None
    assert image_of(slurm_job({"container": "off"}, image=None)) is None
    with pytest.raises(UserError, match=r"^image: a job on SLURM runs the image, and none is named"):
        render(slurm_job(image=None))


def test_places_that_cannot_stand_in_a_script_are_refused() -> None:
    with pytest.raises(UserError, match=r"^paths.runs=/my runs: "):
        render(slurm_job(runs="/my runs"))
    with pytest.raises(UserError, match=r"^/a:b: cannot be shown to a container"):
        render(slurm_job(folders=("/a:b",)))
    assert "--output=/project/runs/small/logs/train.out" in directives(slurm_job(runs="/project/runs"))


def test_values_of_secrets_stand_in_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    assert "hf_verysecret" not in "".join(texts(slurm_job()).values())


def test_the_table_holds_this_target() -> None:
    assert TARGETS["slurm"] is slurm


# --- what bash does with it ------------------------------------------------------------------------------------------

SRUN = """\
#!/usr/bin/env bash
echo "srun $*" >> "$SAID"
if [ -n "${ATTEMPT:-}" ]; then mkdir -p "../../runs/small/attempts/$ATTEMPT"; fi
if [ -n "${UNTIL_STOP:-}" ]; then
    until [ -e "$STOP" ]; do sleep 0.05; done
    sleep 0.3
fi
exit "$CODE"
"""
SCONTROL = """\
#!/usr/bin/env bash
echo "scontrol $*" >> "$SAID"
case "$*" in
    "show job"*) echo "JobState=${STATE:-RUNNING} Reason=None" ;;
    "show hostnames"*) printf 'n1\\nn2\\n' ;;
esac
"""
SAY = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >> "$SAID"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with SLURM's programs on a path, which write down what they are asked."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "scancel": SAY, "sbatch": SAY + "echo 77\n"}.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    (tmp_path / "root/launch/small").mkdir(parents=True)
    (tmp_path / "said").touch()
    return tmp_path


def start(place: Path, continuation: str, code: int, *, flags: tuple[str, ...] = (), **variables: str) -> Any:
    folder = place / "root/launch/small"
    for name, text in texts(slurm_job({"continuation": continuation, "scratch": str(place)}, flags=flags)).items():
        (folder / name).write_text(text)
    environ = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "SAID": str(place / "said"), "CODE": str(code)}
    environ |= {"SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "4", "SLURM_JOB_NODELIST": "n[1-2]", **variables}
    command = ["bash", str(folder / "small.sbatch")]
    return subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended(place: Path, continuation: str, code: int, **more: Any) -> tuple[int, str]:
    """Run the job script with a boot that ends with a code; return its own code and what SLURM was asked."""
    (place / "said").write_text("")
    process = start(place, continuation, code, **more)
    process.communicate(timeout=30)
    return process.returncode, (place / "said").read_text()


@pytest.mark.parametrize("code", [0, 69, 78])
@pytest.mark.parametrize(
    ("continuation", "cancels"),
    [("requeue", "scontrol requeue"), ("chain", "scancel 77"), ("array", "scancel --state=PENDING 4")],
)
def test_what_is_over_is_over_for_every_later_link(place: Path, continuation: str, cancels: str, code: int) -> None:
    found, said = ended(place, continuation, code, ATTEMPT="0001")
    assert found == code
    assert (cancels in said) == (continuation != "requeue")
    assert ended(place, continuation, 1) == (0, "")


@pytest.mark.parametrize("code", [75, 1, 137])
@pytest.mark.parametrize("continuation", ["requeue", "chain", "array"])
def test_what_is_not_over_goes_on(place: Path, continuation: str, code: int) -> None:
    found, said = ended(place, continuation, code, ATTEMPT="0001")
    assert found == code
    assert ("scontrol requeue 5" in said) == (continuation == "requeue")
    assert "scancel" not in said
    assert not (place / "root/launch/small/over").exists()


@pytest.mark.parametrize("continuation", ["requeue", "chain", "array"])
def test_a_job_that_never_got_as_far_as_boot_is_not_tried_again(place: Path, continuation: str) -> None:
    found, said = ended(place, continuation, 255)
    assert found == 255
    assert "requeue" not in said
    assert (place / "root/launch/small/over").read_text() == "255\n"


def test_a_cancelled_job_does_not_requeue_itself(place: Path) -> None:
    _, said = ended(place, "requeue", 75, ATTEMPT="0001", STATE="CANCELLED")
    assert "requeue" not in said
    _, said = ended(place, "chain", 75, ATTEMPT="0001", STATE="CANCELLED")
    assert "scancel 77" in said


def test_flags_are_for_the_first_start_alone(place: Path) -> None:
    _, said = ended(place, "requeue", 75, flags=("--fresh",), ATTEMPT="0001")
    assert said.count("--fresh") == 1
    _, said = ended(place, "requeue", 75, flags=("--fresh",), ATTEMPT="0002")
    assert "srun" in said
    assert "--fresh" not in said


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_notice_becomes_the_stop_file_and_boots_own_code_is_waited_for(place: Path, number: signal.Signals) -> None:
    stop = place / "trainwright-5-0-0" / "stop"
    process = start(place, "requeue", 75, ATTEMPT="0001", UNTIL_STOP="yes", STOP=str(stop))
    deadline = time.monotonic() + 20
    while "srun" not in (place / "said").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert "scontrol requeue 5" in (place / "said").read_text()


def node(place: Path, settings: dict[str, Any], **changes: Any) -> tuple[int, str]:
    """Run the node script with a fake trainwright or apptainer; return its code and all that it said."""
    folder = place / "root/launch/small"
    for name, text in texts(slurm_job({"scratch": str(place), **settings}, **changes)).items():
        (folder / name).write_text(text)
    environ = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "SAID": str(place / "said"), "SLURM_JOB_ID": "5"}
    command = ["bash", str(folder / "small.node.sh"), "boot", "x y"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30, cwd="/")
    return done.returncode, done.stdout + done.stderr


OWN = {"container": "off", "venv": "/nowhere"}


@pytest.mark.parametrize(
    ("settings", "code", "sentence"),
    [
        ({**OWN, "scratch": "/nowhere/disk"}, 69, "scratch folder '/nowhere/disk' is not there or cannot be written"),
        ({**OWN, "scratch": "$NO_SUCH_DISK"}, 69, "scratch folder '' is not there"),
        ({**OWN, "scratch_gib": 10_000_000}, 69, "targets.slurm.scratch_gib=10000000"),
        ({**OWN, "modules": ["no-such-module"]}, 69, "module no-such-module does not load on"),
        (OWN, 69, "/nowhere: has no trainwright; run 'trainwright fetch small'"),
        ({}, 69, "0000000000000000.sif: no such image file; run 'trainwright fetch small'"),
    ],
)
def test_what_a_node_lacks_is_one_sentence(place: Path, settings: dict[str, Any], code: int, sentence: str) -> None:
    found, said = node(place, settings, secrets=())
    assert (found, said.count("\n") <= 2) == (code, True), said
    assert sentence in said


def test_an_env_file_that_others_may_read_is_refused(place: Path) -> None:
    file = place / "root/launch/small/small.env"
    file.write_text("HF_TOKEN=secret\n")
    file.chmod(0o640)
    code, said = node(place, OWN, secrets=("HF_TOKEN",))
    assert code == 78
    assert "small.env: others may read it" in said
    assert "secret" not in said.replace("secrets", "")


def test_a_sif_that_changed_is_refused_and_a_good_one_gets_every_variable(place: Path) -> None:
    fake = place / "bin/apptainer"
    fake.write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"; env | grep ^APPTAINERENV_\n")
    fake.chmod(0o755)
    sif = place / "x.sif"
    sif.write_bytes(b"image")
    kept = place / "x.sif.sha256"
    kept.write_text(f"{'0' * 64}  x.sif\n")
    os.utime(kept, (1, 1))
    code, said = node(place, {"sif": str(sif)}, secrets=())
    assert (code, "its sha256 is not the one in" in said) == (69, True)
    kept.write_text("6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d  x.sif\n")
    os.utime(kept, (1, 1))
    file = place / "root/launch/small/small.env"
    file.write_text("HF_TOKEN='it'\"'\"'s'\n")
    file.chmod(0o600)
    code, said = node(place, {"sif": str(sif), "internet": False}, secrets=("HF_TOKEN",))
    assert code == 0, said
    assert "boot\nx y\n" in said
    for line in ("HF_TOKEN=it's", "HF_HUB_OFFLINE=1", "PET_NODE_RANK=0", "TRAINWRIGHT_STOP_FILE=/tmp/stop"):
        assert f"APPTAINERENV_{line}\n" in said
    assert not list(place.glob("trainwright-*"))
