"""The words `fetch` and `check`: all that an experiment needs from outside, brought here and held to its hashes."""

import shutil
import socket
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from infra.download import Download, download_all
from infra.engine import Engine
from infra.job import Job, build_job
from infra.launches import launch_folder
from infra.parsers import word_parser
from infra.slurm.here import GENERIC, site_of_host, with_site
from infra.slurm.image import build_sif, sif_asset
from infra.slurm.layout import experiment_path, node_script, venv_script
from infra.submit import write_rendered
from infra.targets import TARGETS
from trainwright.spec.exits import Exit, MissingError
from trainwright.spec.load import Loaded, find_experiment, load_experiment, split_words
from trainwright.spec.paths import ROOT_VARIABLE, Places, root_from
from trainwright.spec.sites import SITES
from trainwright.store.assets import Asset, assets_of, compared_with
from trainwright.store.weights import PREFIX, download_weights

CACHES = ("tiktoken_cache",)
"""Folders of a home that other projects fill with the same files under the same names."""


def fetch(argv: Sequence[str]) -> int:
    """Bring every asset of an experiment to this root; return 69 when one is missing in the end."""
    target, loaded = _given("fetch", "Download all that an experiment needs, for nodes without internet.", argv)
    root, engine = root_from(), Engine({ROOT_VARIABLE: str(root_from())})
    if target == "slurm":
        _refuse_other_host(loaded)
    places = Places(root, loaded.experiment)
    missing = [asset for asset in (*assets_of(places), *compared_with(places)) if asset.problem() is not None]
    for asset in missing:
        _take_over(asset)
    wanted = [asset for asset in missing if asset.url is not None and asset.problem() is not None]
    given = loaded.experiment.train.init_from
    if given is not None and given.startswith(PREFIX) and any(asset.name == "train.init_from" for asset in missing):
        download_weights(given, places.assets)
    said = download_all([Download(asset.url, asset.path, asset.entry) for asset in wanted if asset.url and asset.entry])
    job = build_job(loaded)
    if target == "slurm":
        _make_environment(job, root, engine)
    if any(asset.by_stage for asset in missing):
        _make_corpus(target, job, root, engine)
    for problem in said:
        print(problem)  # noqa: T201 - the answer
    return _report(target, loaded, root)


def check(argv: Sequence[str]) -> int:
    """Hold every asset against the disk, without a network; return 69 when one is missing."""
    target, loaded = _given("check", "Say what of an experiment's needs is here, without a network.", argv)
    return _report(target, loaded, root_from())


def _given(word: str, description: str, argv: Sequence[str]) -> tuple[str, Loaded]:
    parser = word_parser(word, description)
    parser.add_argument("--target", choices=sorted(TARGETS), help="for which target; by default what this host is")
    parser.add_argument("words", nargs="*", metavar="EXP [a.b=c ...]", help="experiment file or name, then overrides")
    arguments = parser.parse_intermixed_args(argv)
    name, overrides = split_words(arguments.words)
    loaded = load_experiment(find_experiment(name), overrides, sites=SITES)
    site = loaded.experiment.targets.slurm.site or site_of_host(socket.gethostname(), SITES)
    target = arguments.target or ("slurm" if site not in (None, GENERIC) else "local")
    return target, with_site(loaded, name) if target == "slurm" else loaded


def _refuse_other_host(loaded: Loaded, host: str | None = None) -> None:
    site = loaded.experiment.targets.slurm
    name = host or socket.gethostname()
    if site.fetch_hosts and not any(fnmatchcase(name.partition(".")[0], pattern) for pattern in site.fetch_hosts):
        way = f"run `trainwright fetch {loaded.experiment.name}` on {' or '.join(site.fetch_hosts)}"
        raise MissingError(f"{name}: is no host of {site.site} that reaches the internet; {way}")


def _take_over(asset: Asset) -> None:
    """Copy an asset that another project has left in its cache, when it is the same file."""
    for folder in (Path.home() / name for name in CACHES):
        if asset.entry is not None and (there := folder / asset.path.name).is_file():
            asset.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there, asset.path)
            if asset.problem() is not None:
                asset.path.unlink()


def _make_environment(job: Job, root: Path, engine: Engine) -> None:
    """Make what jobs run in where there is none: the SIF, or the virtual environment from the image's lock files."""
    site = job.targets.slurm
    if site.container != "off":
        build_sif(job, root, engine)
    elif site.venv is None and not (root / "venv/bin/trainwright").exists():
        folder, checkout = launch_folder(root, job.name), Path(__file__).resolve().parents[1]
        write_rendered(TARGETS["slurm"].render(job), folder)
        code = engine.show("bash", str(folder / venv_script(job.name)), str(checkout))
        if code != Exit.OK:
            raise MissingError(f"{root / 'venv'}: could not be made, with code {code} (see above)")


def _make_corpus(target: str, job: Job, root: Path, engine: Engine) -> None:
    """Run the shard stage here, in the image where the site runs it, because its text is streamed."""
    folder = launch_folder(root, job.name)
    write_rendered(TARGETS[target].render(job), folder)
    more = (*job.overrides, "resources.nodes=1", "--until", "shard")
    if target == "slurm":
        code = engine.show("bash", str(folder / node_script(job.name)), "boot", experiment_path(job), *more)
    else:
        code = engine.show("trainwright", "boot", str(folder / job.experiment_file), *more)
    if code != Exit.OK:
        print(f"shard: ended with {code} (see above); the same command goes on where it stopped")  # noqa: T201 - the answer


def _report(target: str, loaded: Loaded, root: Path) -> int:
    """Print one line an asset; return 69 when one is missing."""
    assets, bad = assets_of(Places(root, loaded.experiment)), 0
    if target == "slurm" and loaded.experiment.targets.slurm.container != "off":
        assets.append(sif_asset(build_job(loaded), root))
    for asset in assets:
        problem = asset.problem()
        bad += problem is not None
        size = f" ({asset.entry.bytes:,} bytes)" if asset.entry is not None else ""
        print(f"{asset.stage}: {asset.name}{size}: {problem or f'{asset.path}, in place'}")  # noqa: T201 - the answer
    print(f"{len(assets) - bad} in place, {bad} missing")  # noqa: T201 - the answer
    return Exit.MISSING if bad else Exit.OK
