"""Reads the project's own sources for the laws in test_layout.py: which files, what they import, define and call."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/py.typed"))

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def sources(*folders: str) -> list[Path]:
    """Return the Python files below some folders, relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in sources(*ROOMS)}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (module, line) for every import in a file, wherever it stands; our own modules by their full names."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base), node.lineno


def names_defined(node: ast.AST) -> set[str]:
    return {below.name for below in ast.walk(node) if isinstance(below, Definition)}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def called(node: ast.AST) -> set[str]:
    """Return the last names of everything that is called below a node."""
    callees = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    names = [getattr(callee, "attr", None) or getattr(callee, "id", None) for callee in callees]
    return {name for name in names if name}
