from collections.abc import Callable
from pathlib import Path

import pytest

from infra.slurm.here import find_here, lead_for, longest_save, site_of_host, with_site
from trainwright.spec.exits import UserError
from trainwright.spec.load import load_experiment
from trainwright.spec.sites import SITES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("rorqual2.alliancecan.ca", "rorqual"),
        ("rg31204", "rorqual"),
        ("narval1", "narval"),
        ("ng10702.narval.calcul.quebec", "narval"),
        ("ptolemy-devel-1.arc.msstate.edu", "ptolemy"),
        ("ptolemy-login-1", "ptolemy"),
        ("miso3.stanford.edu", "miso"),
        ("sphinx8", "sphinx"),
        ("laptop", "generic"),
        ("nginx", "generic"),
    ],
)
def test_a_site_is_known_by_its_login_and_compute_hosts(host: str, site: str) -> None:
    assert site_of_host(host, ROOT / SITES) == site


def test_a_host_of_two_profiles_must_be_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("slurm: {hosts: [node*]}\n")
    with pytest.raises(UserError, match=r"^node1: is a host of a, b by their profiles; say which"):
        site_of_host("node1", tmp_path)
    assert site_of_host("other", tmp_path) is None


def test_a_site_that_is_named_is_not_looked_for(experiment_file: Callable[..., Path], tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    sites.mkdir()
    (sites / "a.yaml").write_text("slurm: {hosts: [node*]}\n")
    path = experiment_file()
    found = find_here(load_experiment(path, sites=sites), sites, tmp_path, host="node1")
    assert [one.override for one in found] == ["targets.slurm.site=a"]
    assert found[0].sentence == "site: a, by the name of this host (node1)"
    named = load_experiment(path, ["targets.slurm.site=a"], sites=sites)
    assert find_here(named, sites, tmp_path, host="node1") == []


def test_the_lead_follows_the_runs_own_saves_unless_somebody_chose_it(
    experiment_file: Callable[..., Path], tmp_path: Path
) -> None:
    logs = tmp_path / "runs/small/logs"
    logs.mkdir(parents=True)
    (logs / "train.out").write_text("step=7 checkpoint saved seconds=3.10\nstep=9 checkpoint saved seconds=48.71\n")
    path, sites = experiment_file(), tmp_path / "sites"
    sites.mkdir()
    (sites / "a.yaml").write_text("slurm: {signal_lead_seconds: 900}\n")
    for words in ([], ["targets.slurm.site=a"]):
        found = find_here(load_experiment(path, words, sites=sites), sites, tmp_path)
        assert [one.override for one in found] == ["targets.slurm.signal_lead_seconds=160"]
    chosen = load_experiment(path, ["targets.slurm.signal_lead_seconds=30"], sites=sites)
    assert find_here(chosen, sites, tmp_path) == []


def test_a_lead_holds_two_saves_and_slurms_own_inaccuracy() -> None:
    for seconds in (0.0, 0.1, 5.0, 48.71, 1200.0):
        assert lead_for(seconds) >= 2 * seconds + 60


def test_a_run_without_logs_has_no_measured_save(tmp_path: Path) -> None:
    assert longest_save(tmp_path / "nowhere") is None


def test_what_was_found_is_said_and_travels_as_an_override(
    experiment_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = experiment_file()
    loaded = with_site(load_experiment(path, sites=SITES), str(path))
    assert loaded.overrides == ("targets.slurm.site=generic",)
    assert capsys.readouterr().err.startswith("site: generic, by the name of this host (")
    assert with_site(loaded, str(path)) is loaded
