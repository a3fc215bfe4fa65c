"""The source files of this project, found and parsed once for the tests that read them. It imports nothing of ours."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ir", "compiler", "backends")
_SKIPPED = {"__pycache__", "build", "dist", "out", "node_modules"}
_TEXT = {".py", ".md", ".toml", ".txt", ".c", ".h", ".lark", ".ir", ".yaml", ".yml", ".sh", ".cfg", ".json", ""}


def files(*suffixes: str) -> list[Path]:
    """Files of the project with these suffixes (none: all that hold text), sorted; no build outputs or caches."""
    wanted = set(suffixes) or _TEXT
    return sorted(path for path in _walk(ROOT) if path.suffix in wanted)


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name != ".ci"
            if not hidden and path.name not in _SKIPPED and path.suffix != ".egg-info":
                yield from _walk(path)
        elif path.name != ".git":
            yield path


def name_of(path: Path) -> str:
    """The path from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def modules() -> dict[str, Path]:
    """Our modules by dotted name: those of the three packages."""
    found = {}
    for path in files(".py"):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[0] in PACKAGES:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """What a module imports, with line numbers: our modules by full name, others as written.

    With `top_level` only what runs when it is imported; else also what stands in functions and under TYPE_CHECKING.
    """
    path = modules()[module]
    nodes = _executed(tree(path)) if top_level else ast.walk(tree(path))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, path, node)
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                yield (whole if whole in modules() else origin), node.lineno


def _origin(module: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run on import: no function bodies, nothing under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _executed(child)
