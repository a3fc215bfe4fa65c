"""Lets pytest collect `*.ir` files; `--bless` writes the texts they expect anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.passes.ir_file import Case, CaseFailure, bless, read_cases

settings.register_profile("tests", deadline=None)  # a loaded machine is no defect
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="rewrite the expected texts in *.ir files")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return IrFile.from_parent(parent, path=file_path) if file_path.suffix == ".ir" else None


class IrFile(pytest.File):
    def collect(self):
        for case in read_cases(self.path):
            yield IrItem.from_parent(self, name=case.name, case=case)


class IrItem(pytest.Item):
    def __init__(self, *, case: Case, **arguments) -> None:
        super().__init__(**arguments)
        self.case = case

    def runtest(self) -> None:
        if self.config.getoption("--bless"):
            bless(self.path, self.case)
        else:
            self.case.check()

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, CaseFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, self.case.line - 1, self.name
