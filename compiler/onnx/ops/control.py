"""Control flow of ai.onnx: If, Loop, Scan.

What is decided when compiling is inlined: a branch whose condition is known, a loop of few known steps.
"""

from __future__ import annotations

from typing import Any

from compiler.onnx.registry import onnx_op
from ir.op import OpError
from ir.ops.control import If_


def label(b: Any) -> str:
    """A name for sizes that depend on what a node does at run time."""
    return f"{b.ref.path}/{b.ref.name}" if b.ref.path else b.ref.name


@onnx_op("If", since=1)
def If(b: Any, cond: Any, *, then_branch: Any, else_branch: Any) -> Any:
    content = cond.content
    if content is not None:
        if content.size != 1:
            raise OpError(f"the condition is {cond.type}; it must be one bool")
        return tuple(b.inline(then_branch if content.reshape(-1)[0] else else_branch))
    then, of_then = b.subgraph(then_branch, (), "then")
    orelse, of_orelse = b.subgraph(else_branch, (), "else")
    try:
        return b.apply(If_(then, orelse, label(b)), cond, *of_then, *of_orelse)
    except OpError as error:
        hint = "give the sizes or inputs that the condition depends on a value, so that one branch is left"
        raise OpError(f"{error}; {hint}") from error
