from collections.abc import Callable
from pathlib import Path
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest

from infra.cli import main
from infra.engine import Answer
from infra.launches import find_launch
from infra.sweep import grid, sweep_slurm, table
from recorder import Recorder, a_job
from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment
from trainwright.spec.slurm import SlurmTarget
from trainwright.spec.targets import Targets
from trainwright.store.files import write_text

Said = Callable[..., tuple[int, str, str]]


def points_of(path: Path, *axes: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(point.name, point.values) for point in grid(load_experiment(path), axes)]


def test_every_combination_is_a_run_of_its_own(experiment_file: Callable[..., Path]) -> None:
    assert points_of(experiment_file(), "optimizer.lr=1e-3,3e-3", "model.num_layers=1,2") == [
        ("small-1", ("optimizer.lr=1e-3", "model.num_layers=1")),
        ("small-2", ("optimizer.lr=1e-3", "model.num_layers=2")),
        ("small-3", ("optimizer.lr=3e-3", "model.num_layers=1")),
        ("small-4", ("optimizer.lr=3e-3", "model.num_layers=2")),
    ]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_names_and_combinations_never_repeat(experiment_file: Callable[..., Path], sizes: list[int]) -> None:
    axes = [f"x.a{axis}={','.join(map(str, range(size)))}" for axis, size in enumerate(sizes)]
    found = points_of(experiment_file(), *axes)
    count = 1
    for size in sizes:
        count *= size
    assert len({name for name, _ in found}) == len({values for _, values in found}) == len(found) == count


def test_points_share_corpus_and_tokenizer(experiment_file: Callable[..., Path]) -> None:
    path = experiment_file()
    loaded = load_experiment(path, grid(load_experiment(path), ["optimizer.lr=1e-3,2e-3"])[1].words)
    assert (loaded.experiment.name, loaded.experiment.optimizer.lr) == ("small-2", 2e-3)
    assert (loaded.experiment.data_name, loaded.experiment.tokenizer_name) == ("small", "small")


def test_a_grid_of_nothing_or_of_too_much_is_refused(experiment_file: Callable[..., Path]) -> None:
    base = load_experiment(experiment_file())
    with pytest.raises(UserError, match=r"^sweep: nothing to vary"):
        grid(base, [])
    many = ",".join(map(str, range(40)))
    with pytest.raises(UserError, match=r"^sweep: 1600 points are more than 1000"):
        grid(base, [f"a={many}", f"b={many}"])


@pytest.mark.parametrize("continuation", ["requeue", "chain", "array"])
def test_on_slurm_the_points_are_tasks_of_one_array(tmp_path: Path, continuation: str) -> None:
    slurm = SlurmTarget.model_validate({"container": "off", "continuation": continuation})
    jobs = [a_job(name=f"small-{number}", targets=Targets(slurm=slurm), secrets=()) for number in (1, 2, 3)]
    engine = Recorder(programs=("sbatch",), answers=lambda _: Answer(0, "11\n", ""))
    assert sweep_slurm(jobs, tmp_path, engine, at_once=2) == "11,11"
    text = (tmp_path / "launch/small-sweep/small-sweep.sbatch").read_text()
    assert re.findall(r"^#SBATCH --(?:array|job-name|output)=(.*)$", text, re.MULTILINE) == [
        "small-sweep",
        "1-3%2",
        "../../runs/small-%a/logs/train.out",
    ]
    assert text.endswith(
        'cd "../small-$SLURM_ARRAY_TASK_ID"\n# In this very process, which SLURM tells of the time '
        'limit.\nexec bash "small-$SLURM_ARRAY_TASK_ID.sbatch"\n'
    )
    for number in (1, 2, 3):
        script = (tmp_path / f"launch/small-{number}/small-{number}.sbatch").read_text()
        assert "scancel" not in script
        assert ("scontrol requeue" in script) == (continuation == "requeue")
        assert (tmp_path / f"runs/small-{number}/logs").is_dir()
    launch = find_launch(tmp_path, "small-sweep")
    assert launch is not None
    assert launch.id == "11,11"


def test_the_table_tells_of_points_that_wait(experiment_file: Callable[..., Path], tmp_path: Path) -> None:
    points = grid(load_experiment(experiment_file()), ["optimizer.lr=1e-3,2e-3"])
    assert table(points, tmp_path) == [
        "RUN      VALUES             STEP  LOSS  STATE",
        "small-1  optimizer.lr=1e-3  -     -     waits",
        "small-2  optimizer.lr=2e-3  -     -     waits",
    ]


def test_points_whose_volume_is_elsewhere_are_not_said_to_wait(
    said: Said, experiment_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(tmp_path / "root"))
    words = ("sweep", str(experiment_file()), "--table", "optimizer.lr=1e-3,2e-3", "--target")
    code, out, _ = said(*words, "kubernetes")
    assert code == 0
    assert [line.split("  ")[-1].strip() for line in out.splitlines()[:3]] == [
        "STATE",
        "not visible from here: its folder is on the cluster's volume",
        "not visible from here: its folder is on the cluster's volume",
    ]
    page = (tmp_path / "root/launch/small-sweep/report.md").read_text()
    assert "not visible from here" in page
    code, out, _ = said(*words, "local")
    assert [line.split()[-1] for line in out.splitlines()[:3]] == ["STATE", "waits", "waits"]
    # Where the volume is mounted, a point without a folder waits.
    write_text(tmp_path / "root/runs/small-1/experiment.yaml", "name: x\n")
    code, out, _ = said(*words, "kubernetes")
    assert out.splitlines()[2].endswith("waits")


def test_a_variable_that_names_every_point_the_same_is_refused(
    said: Said, experiment_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_EXPERIMENT", "stray")
    code, _, err = said("sweep", str(experiment_file()), "--target", "local", "--table", "optimizer.lr=1e-3,2e-3")
    assert code == 78
    told = "is set in this environment, and every point of the sweep would have that name; unset it"
    note = "note: follows RUN_EXPERIMENT=stray of this environment"
    assert err.splitlines() == [note, f"trainwright: RUN_EXPERIMENT=stray: {told}"]


def test_a_point_that_does_not_fit_its_gpu_is_named_before_any_is_sent(
    experiment_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINWRIGHT_ROOT", str(tmp_path / "root"))
    words = ["sweep", str(experiment_file()), "--target", "local", "model.dim=64,16384", "resources.gpu=A100"]
    words += ["resources.device=cuda"]
    with pytest.raises(UserError, match=r"^small-2: train\.micro_batch=\d+: needs [\d.]+ GiB of each GPU"):
        main(words)
    assert not (tmp_path / "root").exists()


def test_the_word_asks_for_values(said: Said, experiment_file: Callable[..., Path]) -> None:
    code, _, err = said("sweep", str(experiment_file()), "--target", "local", "optimizer.lr=1e-3")
    assert (code, "nothing to vary" in err) == (78, True)
