"""Elementwise arithmetic, comparison and logic of ai.onnx."""

from __future__ import annotations

from typing import Any

from compiler.onnx.registry import onnx_op


@onnx_op("Add", since=7)
def Add(b: Any, a: Any, c: Any) -> Any:
    return b.add(a, c)
