"""How the house is built, held by parsing every file: which way imports run, how long files are, what must be written.

These tests read source as text and syntax trees; what the code does is tested elsewhere.
"""

from __future__ import annotations

import ast
import re
import sys

import networkx
import pytest

from tests.architecture.source import PACKAGES, files, imports, modules, name_of, tree

ALLOWED = {"ir": {"ir"}, "compiler": {"ir", "compiler"}, "backends": {"ir", "compiler", "backends"}}
"""What each package may import of ours: downward only."""

OUTSIDE = {
    "ir": {"numpy", "lark", "ml_dtypes", "PIL"},  # Pillow is optional: only the meaning of image ops asks for it
    "compiler": {
        "numpy",
        "onnx",
        "ml_dtypes",
        "networkx",
        "typer",
        "click",
        "rich",
        "onnxruntime",
        "openvino",
        "google",
    },
    "backends": {"numpy", "ml_dtypes", "ziglang"},
}
"""What each package may import of others, besides the standard library."""

MOST_LINES = 600
MOST_FUNCTION_LINES = 80
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "manager", "misc"}
MARKS = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"))
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers")) + r")/\w"
)


def test_imports_run_downward():
    """ir <- compiler <- backends, also inside functions: the compiler finds backends by entry point only."""
    wrong = []
    for module in modules():
        package = module.partition(".")[0]
        for imported, line in imports(module):
            top = imported.partition(".")[0]
            if top in {*PACKAGES, "tests", "samples"} - ALLOWED[package]:
                wrong.append(f"{name_of(modules()[module])}:{line} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_backends_do_not_import_each_other():
    """The reference shares no code with an emitter: they would agree by construction."""
    wrong = []
    for module in modules():
        package, _, rest = module.partition(".")
        own = rest.partition(".")[0]
        if package != "backends" or not own:
            continue
        for imported, line in imports(module):
            top, _, other = imported.partition(".")
            if top == "backends" and other.partition(".")[0] != own:
                wrong.append(f"{name_of(modules()[module])}:{line} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_packages_import_only_what_they_need_of_others():
    wrong = []
    for module in modules():
        package = module.partition(".")[0]
        for imported, line in imports(module):
            top = imported.partition(".")[0]
            if top not in {*PACKAGES, *sys.stdlib_module_names, *OUTSIDE[package]}:
                wrong.append(f"{name_of(modules()[module])}:{line} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_in_a_circle():
    """What runs on import has no circles: any module can be imported first."""
    graph = networkx.DiGraph()
    for module in modules():
        for imported, _ in imports(module, top_level=True):
            if imported in modules() and imported != module:
                graph.add_edge(module, imported)
    circles = [" <-> ".join(sorted(part)) for part in networkx.strongly_connected_components(graph) if len(part) > 1]
    assert not circles, "\n".join(sorted(circles))


def test_no_file_is_two_subjects():
    long = []
    for path in files(".py", ".c", ".h", ".lark"):
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > MOST_LINES:
            long.append(f"{name_of(path)}: {count} lines")
    assert not long, "\n".join(long)


def test_functions_fit_a_screen():
    long = []
    for path in modules().values():
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > MOST_FUNCTION_LINES:
                    long.append(f"{name_of(path)}:{node.lineno} {node.name}: {count} lines")
    assert not long, "\n".join(long)


def test_no_file_has_a_name_that_says_nothing():
    wrong = [name_of(path) for path in files() if path.stem.lower() in FORBIDDEN_NAMES]
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is():
    """A module docstring; the package files of tests have none."""
    missing = [
        name_of(path)
        for path in files(".py")
        if path.read_text(encoding="utf-8").strip() and ast.get_docstring(tree(path)) is None
    ]
    assert not missing, "\n".join(missing)


def test_every_public_class_and_function_of_the_ir_says_what_it_does():
    """Public classes of `ir` and `compiler`; functions but for the rules', which their rule's docstring explains."""
    missing = []
    for name, path in modules().items():
        if name.startswith("backends"):
            continue
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and ast.get_docstring(node) is None:
                missing.append(f"{name_of(path)}:{node.lineno} {node.name}")
    assert not missing, "\n".join(missing)


def test_nothing_is_left_to_do_in_comments():
    pattern = re.compile(rf"\b(?:{MARKS})\b")
    found = [
        f"{name_of(path)}:{number} {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_path_of_a_machine_stands_in_a_file():
    found = [
        f"{name_of(path)}:{number} {line.strip()[:120]}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_error_is_swallowed():
    """No bare `except`, and none that catches everything and passes."""
    wrong = []
    for path in files(".py"):
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            does_nothing = all(isinstance(statement, ast.Pass) for statement in node.body)
            if node.type is None or (broad and does_nothing):
                wrong.append(f"{name_of(path)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_says_what_it_is(package):
    assert package in modules()
