"""Errors as users see them: a code, what is wrong, which ONNX node, why, and what to do.

An error carries data; `render` makes the text. Nothing here prints or exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

EXIT_OK = 0
EXIT_MISMATCH = 1
EXIT_USAGE = 2
EXIT_MODEL = 3
EXIT_UNSUPPORTED = 4
EXIT_DOES_NOT_FIT = 5
EXIT_TOOL = 6
EXIT_UNVERIFIED = 7
EXIT_REGRESSION = 8
EXIT_LIMIT = 9
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class NodeRef:
    """The ONNX node an error is about. `index` is its position in its graph, `path` the graphs around it."""

    name: str
    op: str = ""
    domain: str = ""
    opset: int | None = None
    index: int | None = None
    path: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def __str__(self) -> str:
        number = "" if self.index is None else f"#{self.index} "
        opset = "" if self.opset is None else f", opset {self.opset}"
        what = f" ({self.domain or 'ai.onnx'}::{self.op}{opset})" if self.op else ""
        where = f" in {self.path}" if self.path else ""
        return one_line(f"node {number}'{self.name}'{what}{where}")


class CompileError(Exception):
    """A problem that the user can act on. `exit_code` is the process status of the command that meets it."""

    exit_code = EXIT_MODEL

    def __init__(
        self,
        code: str,
        message: str,
        *,
        node: NodeRef | None = None,
        file: str | None = None,
        help: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.node = node
        self.file = file
        self.help = help
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """The error as text, in the style `error[CODE]: what`, then where, then what to do."""
        lines = [f"error[{self.code}]: {printable(self.message)}"]
        place = [one_line(part) for part in (self.file, str(self.node) if self.node else None) if part]
        if place:
            lines.append(f"  --> {': '.join(place)}")
        if self.node and self.node.inputs:
            lines.append("      inputs : " + "   ".join(map(one_line, self.node.inputs)))
        if self.node and self.node.outputs:
            lines.append("      outputs: " + "   ".join(map(one_line, self.node.outputs)))
        if self.help:
            lines.append(f"  help: {printable(self.help)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The same as a JSON object."""
        record: dict[str, object] = {"code": self.code, "message": self.message}
        if self.file:
            record["file"] = self.file
        if self.node:
            record["node"] = {
                "name": self.node.name, "op": self.node.op, "domain": self.node.domain or "ai.onnx",
                "opset": self.node.opset, "index": self.node.index, "path": self.node.path,
                "inputs": list(self.node.inputs), "outputs": list(self.node.outputs),
            }  # fmt: skip
        if self.help:
            record["help"] = self.help
        return record


class ModelError(CompileError):
    """The model file is unreadable, malformed, or over a safety limit."""

    exit_code = EXIT_MODEL


class UnsupportedError(CompileError):
    """An operator, type or shape that the compiler or the target does not do.

    `needs` names the inputs of the model that would have to be known when compiling, where that is all that is missing.
    """

    exit_code = EXIT_UNSUPPORTED
    needs: tuple[str, ...] = ()


class CompileWarning(UserWarning):
    """Something that was given and is not used as it was meant; what is made is right nevertheless."""


class UsageError(CompileError):
    """An option, name or value that does not exist or does not apply."""

    exit_code = EXIT_USAGE


class ToolError(CompileError):
    """An external tool, such as the C compiler, failed."""

    exit_code = EXIT_TOOL


@dataclass
class Problems(CompileError):
    """Several errors of one run, reported together. The exit code is that of the first."""

    errors: Sequence[CompileError] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        first = self.errors[0]
        CompileError.__init__(self, first.code, f"{len(self.errors)} problems", exit_code=first.exit_code)

    def render(self) -> str:
        """All errors; those of equal text apart from the node are listed once with their nodes."""
        groups: dict[tuple[str, str], list[CompileError]] = {}
        for error in self.errors:
            groups.setdefault((error.code, error.message), []).append(error)
        blocks = []
        for same in groups.values():
            text = same[0].render()
            if len(same) > 1:
                others = ", ".join(_short(e.node) for e in same[1:9] if e.node)
                more = f" and {len(same) - 9} more" if len(same) > 9 else ""
                text += f"\n  note: {len(same) - 1} more with the same cause: {others}{more}"
            blocks.append(text)
        return "\n".join(blocks)


def _short(node: NodeRef) -> str:
    """Number and name, as far as they are known."""
    return f"{'' if node.index is None else f'#{node.index} '}'{printable(node.name)}'"


def one_line(text: str) -> str:
    """`text` with control characters and line ends escaped, so that a name cannot pass for a line of an error."""
    return printable(text).replace("\n", "\\n")


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a name in a model cannot drive a terminal."""
    return "".join(ch if ch.isprintable() or ch == "\n" else ch.encode("unicode_escape").decode() for ch in text)
