"""The laws of the house: who may import whom, how long things may be, and that tables, tests and README keep up.

Everything is read from the sources; the packages that are found on disk are the packages that are judged.
"""

import ast
import json
from pathlib import Path
import re
import subprocess
import sys
import tomllib

import pytest

from sources import ROOMS, ROOT, Definition, called, functions, imports, module_name, names_defined, sources, tree
from trainwright.spec import kinds

ARROWS = {
    "trainwright": set(),
    "trainer": {"trainwright"},
    "sharder": {"trainwright"},
    "infra": {"trainwright"},
    "report": {"trainwright"},
    "evals": {"trainer", "trainwright"},
    "chat": {"trainer", "trainwright"},
}
"""Room -> the other rooms that it may import."""
FLOORS = {"spec": set(), "store": {"spec"}, "tokens": {"spec", "store"}}
"""The same inside trainwright."""
LEAF = "infra.rooms"
"""What boot and the laptop side of infra both may import."""

TORCH_FREE = [room for room in ROOMS if room in ("trainwright", "infra", "sharder", "report")]
HEAVY = (
    *("torch", "numpy", "tiktoken", "rustbpe", "zstandard", "datasets", "pyarrow", "huggingface_hub"),
    *("safetensors", "torchao", "tensorboard", "matplotlib", "boto3", "runpod", "requests"),
)

IMPORT_NAMES = {
    "pyyaml": "yaml",
    "tomli-w": "tomli_w",
    "huggingface-hub": "huggingface_hub",
    "python-dotenv": "dotenv",
    "pydantic-core": "pydantic_core",
}
INDIRECT = {"tensorboard": "torch.utils.tensorboard"}
"""Dependency -> the module of another package that needs it."""
GROUP_ROOMS = {
    "": set(ROOMS),
    "sharder": {"sharder", "trainwright"},
    "trainer": {"trainer", "trainwright"},
    "report": {"report"},
    "s3": {"trainwright", "infra", "sharder"},
    "runpod": {"infra"},
}
"""Dependency group of pyproject.toml ("" is what everybody gets) -> the rooms that it is for."""
NOT_YET: dict[str, str] = {}
"""Dependencies that nothing imports yet, and why they are declared."""

COMBINED: dict[str, str] = {
    **dict.fromkeys(
        (f"report/{name}.py" for name in ("__main__", "contents", "facts", "headline", "records", "verdict")),
        "tests/report/test_report_write.py",
    ),
    "infra/drill_course.py": "tests/infra/test_drill.py",
    **dict.fromkeys(
        (f"infra/slurm/{name}.py" for name in ("bash", "directives", "layout", "node", "scripts")),
        "tests/infra/test_targets_slurm.py",
    ),
    **dict.fromkeys(
        (f"infra/runpod/{name}.py" for name in ("body", "gpus")),
        "tests/infra/test_targets_runpod.py",
    ),
    **dict.fromkeys(
        (f"infra/runpod/{name}.py" for name in ("answers", "reap", "shell_init", "storage", "tables", "volumes")),
        "tests/infra/test_runpod_words.py",
    ),
    **dict.fromkeys(
        (f"infra/kubernetes/{name}.py" for name in ("documents", "files", "names")),
        "tests/infra/test_targets_kubernetes.py",
    ),
    **dict.fromkeys(
        (f"infra/kubernetes/{name}.py" for name in ("checks", "cluster", "logs")),
        "tests/infra/test_kubernetes_launched.py",
    ),
    "infra/buckets.py": "tests/infra/test_copies.py",
    "infra/runpod/clock.py": "tests/infra/test_runpod_client.py",
    "infra/runpod/cloud.py": "tests/infra/test_runpod_client.py",
    "infra/runpod/launched.py": "tests/infra/test_runpod_create.py",
    "infra/runpod/seed_manifest.py": "tests/infra/test_runpod_manifest.py",
    "infra/runpod/wait.py": "tests/infra/test_runpod_create.py",
    "trainwright/spec/runpod.py": "tests/infra/test_pod.py",
    "infra/parsers.py": "tests/infra/test_cli.py",
    **dict.fromkeys(
        (f"sharder/{name}.py" for name in ("begin", "ingest", "plan", "publish")), "tests/sharder/test_parts.py"
    ),
    **dict.fromkeys(
        (f"sharder/sources/{name}.py" for name in ("hub_errors", "remote")), "tests/sharder/test_sources_hub.py"
    ),
    "sharder/sources/s3.py": "tests/engines/test_s3.py",
    "report/printable.py": "tests/report/test_report_page.py",
    "trainwright/spec/data.py": "tests/trainwright/test_experiment.py",
    "trainwright/spec/model.py": "tests/trainwright/test_derived.py",
    "trainwright/spec/optimizers.py": "tests/trainer/test_groups.py",
    "trainwright/spec/training.py": "tests/trainwright/test_experiment.py",
}
"""Files whose laws are held by a test of another name."""

MAX_LINES = 400
MAX_LINES_OF = {"trainer/loop.py": 150}
MAX_FUNCTION_LINES = 50
MAX_FUNCTION_LINES_OF = {"train": 80}
MAX_SCRIPT_LINES = 20


def definition(path: str, name: str) -> Definition:
    """Return a function or class by name; fail when the file or the name is not there."""
    assert (ROOT / path).is_file(), f"{path} is missing"
    for node in ast.walk(tree(Path(path))):
        if isinstance(node, Definition) and node.name == name:
            return node
    pytest.fail(f"{path} has no {name}")


def in_fresh_python(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- imports ---------------------------------------------------------------------------------------------------------


def test_every_room_has_its_arrows_written_down() -> None:
    assert set(ROOMS) <= set(ARROWS), "say in ARROWS what the new room may import"
    assert {"trainwright", "trainer", "sharder", "infra", "report"} <= set(ROOMS)


def test_rooms_import_only_along_the_arrows() -> None:
    wrong = [
        f"{path}:{line} imports {module}"
        for path in sources(*ROOMS)
        for module, line in imports(path)
        if (room := module.split(".")[0]) in ARROWS and room not in ARROWS[path.parts[0]] | {path.parts[0]}
    ]
    assert not wrong, "\n".join(wrong)


def test_inside_trainwright_tokens_stand_on_store_and_store_on_spec() -> None:
    wrong = []
    for path in sources("trainwright"):
        floor = path.parts[1] if len(path.parts) > 2 else ""
        for module, line in imports(path):
            below = [*module.split("."), ""][1] if module.startswith("trainwright.") else ""
            # Modules that lie directly in trainwright import no floor, so every floor may import them.
            if below in FLOORS and below not in FLOORS.get(floor, set()) | {floor}:
                wrong.append(f"{path}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_boot_and_the_laptop_side_of_infra_share_one_leaf() -> None:
    wrong = []
    for path in sources("infra"):
        here = module_name(path)
        in_boot = here.startswith("infra.boot")
        for module, line in imports(path):
            if not module.startswith("infra.") or (module == LEAF and here != LEAF):
                continue
            if here == LEAF or in_boot != module.startswith("infra.boot"):
                wrong.append(f"{path}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_imported_by_a_string() -> None:
    wrong = [str(path) for path in sources(*ROOMS) if called(tree(path)) & {"import_module", "__import__"}]
    assert not wrong, "\n".join(wrong)


def test_rooms_without_tensors_import_with_torch_blocked() -> None:
    names = [module_name(path) for path in sources(*TORCH_FREE)]
    program = """
import importlib, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is blocked")
sys.meta_path.insert(0, NoTorch())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.argv) - 1)
"""
    assert in_fresh_python(program, *names).strip() == str(len(names))


def test_words_and_rendering_import_nothing_heavy() -> None:
    laptop = [name for path in sources("infra") if not (name := module_name(path)).startswith("infra.boot")]
    program = """
import importlib, json, sys
heavy, names = json.loads(sys.argv[1])
for name in names:
    importlib.import_module(name)
print([name for name in heavy if name in sys.modules])
"""
    words = [module_name(path) for path in sources("trainwright/spec")]
    assert in_fresh_python(program, json.dumps([HEAVY, words + laptop])).strip() == "[]"


# --- the two paths of four hops --------------------------------------------------------------------------------------


def test_a_batch_goes_from_shards_to_the_model_in_four_files() -> None:
    assert "windows" in names_defined(definition("trainwright/tokens/shards.py", "TokenCorpus"))
    makers = [node for node in ast.walk(tree(Path("trainer/data.py"))) if isinstance(node, Definition)]
    assert any("batch" in maker.name.lower() and "windows" in called(maker) for maker in makers)
    assert "trainer.data" in {module for module, _ in imports(Path("trainer/loop.py"))}
    assert {"next", "train_step"} <= called(definition("trainer/loop.py", "train"))
    assert "model" in called(definition("trainer/loop.py", "train_step"))
    models = [path for path in sources("trainer/models") if path.name != "__init__.py"]
    assert models
    for path in models:
        assert "forward" in names_defined(tree(path))


def test_a_launch_goes_from_the_file_to_submit_in_four_files() -> None:
    for path, name in (
        ("trainwright/spec/load.py", "load_experiment"),
        ("infra/job.py", "build_job"),
        ("infra/submit.py", "submit"),
    ):
        definition(path, name)
    assert any(module.startswith("trainwright.spec") for module, _ in imports(Path("infra/job.py")))
    targets = [path for path in sources("infra/targets") if path.name != "__init__.py"]
    assert targets
    for path in targets:
        assert "infra.job" in {module for module, _ in imports(path)}
        assert "render" in names_defined(tree(path))
    hops = {"load_experiment", "build_job", "render", "submit"}
    assert hops <= set().union(*(called(tree(path)) for path in sources("infra")))


@pytest.mark.parametrize(
    "path_of_files",
    [
        ("trainwright/tokens/shards.py", "trainer/data.py", "trainer/loop.py", "trainer/models/llama.py"),
        ("trainwright/spec/load.py", "infra/job.py", "infra/targets/", "infra/submit.py"),
    ],
)
def test_the_readme_prints_both_paths_in_order(path_of_files: tuple[str, ...]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(".*?".join(re.escape(name) for name in path_of_files), text, re.DOTALL)


# --- sizes, names, what is forbidden ---------------------------------------------------------------------------------


def test_files_keep_their_budget() -> None:
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in all_sources()}
    over = [f"{path}: {lines}" for path, lines in lengths.items() if lines > MAX_LINES_OF.get(str(path), MAX_LINES)]
    assert not over, "\n".join(over)


def test_functions_keep_their_budget() -> None:
    over = []
    for path in all_sources():
        for function in functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > MAX_FUNCTION_LINES_OF.get(function.name, MAX_FUNCTION_LINES):
                over.append(f"{path}:{function.lineno} {function.name}: {lines} lines")
    assert not over, "\n".join(over)


def test_only_one_function_has_the_larger_budget() -> None:
    assert sum(function.name == "train" for path in sources("trainer") for function in functions(path)) == 1


def test_shell_scripts_are_short() -> None:
    over = []
    for path in [ROOT / ".ci/run", *ROOT.glob("docker/*.sh"), *ROOT.glob("*/**/*.sh")]:
        if ".venv" in path.parts:
            continue
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if len(lines) > MAX_SCRIPT_LINES:
            over.append(f"{path.relative_to(ROOT)}: {len(lines)} lines of commands")
    assert not over, "\n".join(over)


def test_no_file_is_a_drawer_for_everything() -> None:
    assert not [path for path in all_sources() if path.stem in ("utils", "util", "common", "helpers", "helper", "misc")]


def test_the_product_loads_nothing_through_pickle() -> None:
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
    wrong = []
    for path in sources(*ROOMS):
        wrong += [f"{path}:{line} imports {name}" for name, line in imports(path) if name.split(".")[0] in pickles]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
                wrong.append(f"{path}:{node.lineno} uses {ast.unparse(node)}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                wrong.append(f"{path}:{node.lineno} says allow_pickle")
    assert not wrong, "\n".join(wrong)


def all_sources() -> list[Path]:
    return sources(*ROOMS, "tests", "bench", ".ci")


# --- tests, dependencies, tables -------------------------------------------------------------------------------------


def test_every_file_with_public_functions_has_a_test_of_its_name() -> None:
    tests = {str(path) for path in sources("tests")}
    alone = [
        str(path)
        for path in sources(*ROOMS)
        if has_public_functions(path) and not tests & mirrors(path) and COMBINED.get(str(path)) not in tests
    ]
    assert not alone, "\n".join(alone)


def test_the_table_of_combined_tests_is_needed() -> None:
    tests = {str(path) for path in sources("tests")}
    assert not [path for path in COMBINED if not (ROOT / path).is_file() or tests & mirrors(Path(path))]


def has_public_functions(path: Path) -> bool:
    found = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(not function.name.startswith("_") for function in found)


def mirrors(path: Path) -> set[str]:
    """Return the names that a file's test may have: rooms repeat names, and pytest wants base names once."""
    room, stem = path.parts[0], path.parent.name if path.name == "__init__.py" else path.stem.strip("_")
    return {f"tests/{room}/test_{name}.py" for name in (stem, f"{room}_{stem}", f"{path.parent.name}_{stem}")}


def dependencies() -> dict[str, set[str]]:
    """Return group -> names of its dependencies as they are imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {
        group: {re.match(r"[\w-]+", line).group().lower() for line in lines if not line.startswith("trainwright[")}
        for group, lines in groups.items()
    }
    return {group: {IMPORT_NAMES.get(name, name) for name in found} for group, found in names.items()}


def imported_by(rooms: set[str]) -> set[str]:
    found = {module for path in sources(*sorted(rooms & set(ROOMS))) for module, _ in imports(path)}
    indirect = {name for name, by in INDIRECT.items() if any(module.startswith(by) for module in found)}
    return {module.split(".")[0] for module in found} | indirect


@pytest.mark.parametrize("group", sorted(GROUP_ROOMS))
def test_every_dependency_is_imported_by_its_room(group: str) -> None:
    unused = dependencies()[group] - imported_by(GROUP_ROOMS[group])
    assert unused <= set(NOT_YET)


def test_what_is_not_used_yet_is_really_not_used() -> None:
    assert set(NOT_YET) <= set().union(*dependencies().values())
    assert not set(NOT_YET) & imported_by(set(ROOMS))


@pytest.mark.parametrize("room", ROOMS)
def test_every_import_is_declared_for_its_room(room: str) -> None:
    groups = [group for group, rooms in GROUP_ROOMS.items() if room in rooms]
    declared = set().union(*(dependencies()[group] for group in groups)) | set(ROOMS) | set(sys.stdlib_module_names)
    undeclared = imported_by({room}) - declared
    assert not undeclared


def test_tables_and_schema_agree_about_sources() -> None:
    from sharder.sources import SOURCES

    assert set(SOURCES) == set(kinds("data.source"))


def test_tables_and_schema_agree_about_the_trainer() -> None:
    from trainer.models import MODELS
    from trainer.optim import OPTIMIZERS
    from trainer.schedule import SCHEDULES

    assert set(MODELS) == set(kinds("model"))
    assert set(OPTIMIZERS) == set(kinds("optimizer"))
    assert set(SCHEDULES) == set(kinds("schedule"))


def test_every_target_file_is_in_the_table() -> None:
    from infra.targets import TARGETS

    files = {path.stem for path in sources("infra/targets") if path.name != "__init__.py"}
    assert set(TARGETS) == files
    assert {name: target.render.__module__ for name, target in TARGETS.items()} == {
        name: f"infra.targets.{name}" for name in files
    }
