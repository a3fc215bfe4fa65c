"""The file of measured choices: JSON, an entry for each structure of a kernel, and where it was measured.

What a file says is never more than a choice among those that a pass offers, so that no file makes wrong code. One that
cannot be read is an error; what does not fit the machine, the options or the model is said in a warning.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compiler.choices import Answers
from compiler.errors import CompileWarning, UsageError
from compiler.pipeline import Pipeline, takes_choices

SCHEMA_VERSION = 1
_MOST_BYTES = 16 << 20
_SHOWN = 3


@dataclass
class Entry:
    """A choice for kernels of one structure: what was measured, in milliseconds, and what is faster."""

    point: str
    key: str
    rule: str
    choice: str
    ms: dict[str, float] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)


@dataclass
class Tuned:
    """The content of a file. `machine` is what `Backend.machine` says of where it was measured, `version` that of the
    compiler."""

    machine: dict[str, Any]
    version: str
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Keeps an entry, instead of an earlier one for the same structure."""
        self.entries[entry.point, entry.key] = entry

    def answers(self) -> Answers:
        """The choices, for passes."""
        return Answers({where: entry.choice for where, entry in self.entries.items()})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, in the place of an earlier one only when it is whole."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "compiler": {"name": "sesame", "version": self.version},
            "machine": self.machine,
            "kernels": [vars(entry) for _, entry in sorted(self.entries.items())],
        }
        partial = Path(f"{os.fspath(path)}.partial")
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
        os.replace(partial, path)


def read_tuned(path: str | os.PathLike[str]) -> Tuned:
    """The content of a file. Raises UsageError for one that is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise _refusal(path, f"is larger than {_MOST_BYTES >> 20} MiB")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise _refusal(path, f"is not a file of choices of version {SCHEMA_VERSION}")
    compiler, machine, kernels = (content.get(name) for name in ("compiler", "machine", "kernels"))
    if not isinstance(compiler, dict) or not isinstance(machine, dict) or not isinstance(kernels, list):
        raise _refusal(path, "does not say where it was measured, or what")
    found = Tuned(machine, str(compiler.get("version")))
    for position, item in enumerate(kernels):
        found.add(_entry(path, position, item))
    return found


def _entry(path: str | os.PathLike[str], position: int, item: Any) -> Entry:
    if not isinstance(item, dict):
        raise _refusal(path, f"has an entry {position} that is none")
    point, key, rule, choice = texts = [item.get(name) for name in ("point", "key", "rule", "choice")]
    ms, nodes = item.get("ms", {}), item.get("nodes", [])
    is_read = all(isinstance(text, str) for text in texts) and isinstance(ms, dict) and isinstance(nodes, list)
    if not is_read or not all(isinstance(value, int | float) for value in ms.values()):
        raise _refusal(
            path, f"has an entry {position} without the texts point, key, rule and choice, or with other times"
        )
    times = {str(form): float(value) for form, value in ms.items()}
    return Entry(str(point), str(key), str(rule), str(choice), times, list(map(str, nodes)))


def _refusal(path: str | os.PathLike[str], what: str) -> UsageError:
    help_ = "make one with `sesame tune MODEL -o FILE`"
    return UsageError("E0216", f"the file of tuned choices {what}", file=os.fspath(path), help=help_)


def differences(tuned: Tuned, machine: Mapping[str, Any], version: str) -> list[str]:
    """What of this machine and its options is not what it was where the choices were measured, as sentences."""
    found = [
        f"{name} was {tuned.machine.get(name)!r}, and is {value!r}"
        for name, value in machine.items()
        if tuned.machine.get(name) != value
    ]
    return found + ([f"the compiler was {tuned.version}, and is {version}"] if tuned.version != version else [])


def answering(pipeline: Pipeline, answers: Answers) -> Pipeline:
    """The pipeline with `answers` for every pass that asks."""
    return Pipeline([step.with_options(choices=answers) if takes_choices(step) else step for step in pipeline.passes])


def warn_of_misfits(pipeline: Pipeline) -> None:
    """Warns of answers that passes of a pipeline that has run did not take, and where none was asked for."""
    found = {id(a): a for s in pipeline.passes for a in (dict(s.options).get("choices"),) if isinstance(a, Answers)}
    for answers in found.values():
        if answers.refused:
            shown = [f"{choice!r} for {key}" for (_, key), choice in answers.refused.items()][:_SHOWN]
            more = len(answers.refused) - len(shown)
            said = "; ".join(shown) + (f"; and {more} more" if more else "")
            warnings.warn(f"tuned choices that there are not, the rules' instead: {said}", CompileWarning, stacklevel=3)
        elif answers.known and not answers.known.keys() & answers.asked.keys():
            message = f"none of the {len(answers.known)} tuned choices is for a kernel of this model"
            warnings.warn(message, CompileWarning, stacklevel=3)


__all__ = ["Entry", "Tuned", "answering", "differences", "read_tuned", "warn_of_misfits"]
