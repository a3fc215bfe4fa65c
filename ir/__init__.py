"""What programs are: types, symbolic dims, graphs of tensor ops, kernels, rules, and the texts of both IRs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ir.rule import Rule


def __getattr__(name: str) -> Any:
    """`ir.Rule`, imported on first use, so that `import ir` costs nothing."""
    if name != "Rule":
        raise AttributeError(f"module 'ir' has no attribute {name!r}")
    from ir.rule import Rule

    return Rule


__all__ = ["Rule"]
