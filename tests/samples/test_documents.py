"""What the pages say is run: Python, commands and C programs of README, CONTRIBUTING and docs, page by page.

Also that they are complete: every command and option of the command line, every error code, and every link.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import files, modules, tree
from tests.samples.document import Untrue, blocks, run_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_RUN = ("python", "console")


def _page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _is_run(page: Path) -> bool:
    return any(block.language in _RUN for block in blocks(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [page for page in PAGES if _is_run(page)], ids=lambda page: page.name)
def test_page_is_true(page, tmp_path):
    """Runs the page in an empty folder beside the samples."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    done = subprocess.run(
        [sys.executable, "-m", "tests.samples.document", page],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_is_not_true_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```console\n$ python -c 'print(1)'\n2\n```\n", encoding="utf-8")
    with pytest.raises(Untrue, match="does not print '2'"):
        run_page(page)
    page.write_text("```console\n$ python -c 'raise SystemExit(3)'\n```\n", encoding="utf-8")
    with pytest.raises(Untrue, match="status 3"):
        run_page(page)


def test_readme_has_the_two_commands():
    """Each is one line, starts from nothing, and is what continuous integration runs."""
    setup = [block.text.strip() for block in blocks(_page("README.md")) if block.language == "sh"][:2]
    assert len(setup) == 2
    assert all(text.startswith("python3 -m venv .venv && ") and "\n" not in text for text in setup)
    assert "sesame compile samples/digits/digits.onnx" in setup[0]
    assert "sesame verify" in setup[0]
    assert "pytest" in setup[1]


def test_every_command_and_option_is_on_the_page():
    import typer.main

    from compiler.cli import app

    text = _page("docs/cli.md")
    root = typer.main.get_command(app)
    missing = []
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
        if not found:
            missing.append(f"command {name}")
            continue
        shared = {option for parameter in root.params for option in parameter.opts}
        for parameter in command.params:
            options = [*parameter.opts, *parameter.secondary_opts]
            if parameter.param_type_name != "option" or shared & set(options):
                continue
            missing += [f"{name} {option}" for option in options if f"`{option}" not in found[1]]
    everywhere = text.partition("\n## ")[0]
    missing += [
        option
        for parameter in root.params
        for option in parameter.opts
        if option.startswith("--") and f"`{option}" not in everywhere
    ]
    assert not missing, "\n".join(missing)


def test_the_page_names_no_option_that_does_not_exist():
    import typer.main

    from compiler.cli import app

    root = typer.main.get_command(app)
    commands = [root, *root.commands.values()]  # type: ignore[attr-defined]
    known = {o for c in commands for p in c.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    named = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", " ".join(re.findall(r"`([^`\n]+)`", _page("docs/cli.md")))))
    assert named <= known, sorted(named - known)


def test_every_error_code_and_status_is_on_the_page():
    text = _page("docs/errors.md")
    used = {
        node.value
        for path in modules().values()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"E\d{4}", node.value)
    }
    documented = set(re.findall(r"^\| (E\d{4}) \|", text, re.M))
    assert used ^ documented == set()
    from compiler import errors

    statuses = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.M)} == statuses


def test_links_lead_somewhere():
    broken = []
    for page in files(".md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken, "\n".join(broken)
