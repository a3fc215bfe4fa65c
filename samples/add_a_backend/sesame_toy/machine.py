"""The toy machine: sixteen registers that hold f32 tensors, and the instructions below on whole tensors.

Its program is a text with one instruction a line:

    input r0, 0          ; r0 = the first input
    weight r1, 0         ; r1 = the first weight
    matmul r2, r0, r1
    relu r2, r2
    output 0, r2         ; the first output = r2

This module knows nothing of compilers: it is what a data sheet and a simulator would be for a real machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

REGISTERS = 16

INSTRUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "exp": np.exp,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "matmul": np.matmul,
}
"""What each instruction computes. Operands of two tensors broadcast as in NumPy."""

_LINE = re.compile(r"(\w+) +r?(\d+)((?:, *r?\d+)*)")


class MachineError(Exception):
    """A program that the machine cannot run; the message names the line."""


def run(text: str, inputs: Sequence[np.ndarray], weights: Sequence[np.ndarray], outputs: int) -> list[np.ndarray]:
    """Runs a program; its outputs in order. Raises MachineError for a line that is no instruction."""
    registers: list[np.ndarray | None] = [None] * REGISTERS
    results: list[np.ndarray | None] = [None] * outputs
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition(";")[0].strip()
        if not code:
            continue
        found = _LINE.fullmatch(code)
        if found is None:
            raise MachineError(f"line {number}: {code!r} is no instruction")
        name, first = found[1], int(found[2])
        rest = [int(part) for part in re.findall(r"\d+", found[3])]
        try:
            match name:
                case "input":
                    registers[first] = inputs[rest[0]]
                case "weight":
                    registers[first] = weights[rest[0]]
                case "output":
                    results[first] = registers[rest[0]]
                case _:
                    registers[first] = INSTRUCTIONS[name](*(registers[r] for r in rest))
        except (KeyError, IndexError, TypeError) as error:
            raise MachineError(f"line {number}: {code!r} cannot run: {error}") from error
    missing = [n for n, result in enumerate(results) if result is None]
    if missing:
        raise MachineError(f"the program gives no output {missing[0]}")
    return [result for result in results if result is not None]
