"""Statuses of models in C, and the errors that become of them in Python."""

from __future__ import annotations

import pytest

from backends.c.ports import failed_run
from backends.c.statuses import OF_FORM, OF_VALUES, STATUSES, status_name
from compiler.errors import EXIT_INTERNAL, EXIT_UNSUPPORTED, EXIT_USAGE

EXPECTED = {
    "ERROR_NULL": EXIT_INTERNAL,
    "ERROR_ARENA_TOO_SMALL": EXIT_INTERNAL,
    "ERROR_ARENA_ALIGN": EXIT_INTERNAL,
    "ERROR_DIMS": EXIT_USAGE,
    "ERROR_INDEX": EXIT_USAGE,
    "ERROR_LIMIT": EXIT_USAGE,
    "ERROR_UNSUPPORTED": EXIT_UNSUPPORTED,
}


@pytest.mark.parametrize("number", range(1, len(STATUSES)))
def test_each_status_has_its_exit_code(number: int) -> None:
    name, words = STATUSES[number]
    error = failed_run(number, words)
    assert error.exit_code == EXPECTED[name] and words in error.message


def test_names_of_statuses() -> None:
    assert [status_name(number) for number in range(len(STATUSES))] == [name for name, _ in STATUSES]
    assert {*OF_VALUES, OF_FORM} <= {name for name, _ in STATUSES}
    assert status_name(-1) == status_name(99) == ""
    assert failed_run(99, "unknown status").exit_code == EXIT_INTERNAL
