"""Symbolic sizes from the shapes of arrays: what every run of a model starts with.

It needs types and sizes only, so that a compiled model can be loaded without the graph code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from ir.demand import broken_demand
from ir.dim_form import Name
from ir.dims import Size, dim_text, evaluate, names, substitute, terms
from ir.types import SequenceType, TensorType, Type

Equation = tuple[str, int, Size, int]
"""(label of the array, axis, size, actual extent)"""


def bind_sizes(
    types: Sequence[Type], arrays: Sequence[Any], labels: Sequence[str] = (), given: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The value of every symbol in `types`, solved from the shapes of `arrays`, and of those in `given`.

    Shapes win over `given`. A dim that is an expression is solved where one symbol is left in it, else checked.
    Raises ValueError, naming the input and both sizes, for a contradiction, and for a symbol that nothing tells.
    """
    found: dict[str, int] = {}
    open_: list[Equation] = []
    for position, (type_, array) in enumerate(zip(types, arrays)):
        label = labels[position] if position < len(labels) else f"input {position}"
        open_ += equations(label, type_, array)
    open_ = solve_sizes(open_, found)
    found = {**(given or {}), **found}
    check_sizes(solve_sizes(open_, found), found)
    unknown = {name for type_ in types if isinstance(type_, TensorType) for size in type_.shape for name in names(size)}
    missing = sorted(unknown - found.keys())
    if missing:
        raise ValueError(f"the shapes of the inputs do not tell the size {', '.join(missing)}")
    return found


def equations(label: str, type_: Type, array: Any) -> list[Equation]:
    """(label, axis, size, actual) for each axis of a tensor; sequences and optionals tell nothing."""
    if not isinstance(type_, TensorType):
        if isinstance(type_, SequenceType) and not isinstance(array, (list, tuple)):
            raise ValueError(f"{label}: {type_} takes a list")
        return []
    shape = np.shape(array)
    if len(shape) != type_.rank:
        raise ValueError(f"{label}: {type_} has {type_.rank} axes, the array has shape {list(shape)}")
    return [(label, axis, size, actual) for axis, (size, actual) in enumerate(zip(type_.shape, shape))]


def solve_sizes(equations: list[Equation], found: dict[str, int]) -> list[Equation]:
    """Solves what can be solved into `found`; gives the equations that remain to be checked, in order."""
    remaining, progress = equations, True
    while progress:
        progress, unsolved = False, []
        for equation in remaining:
            solution = _solution(equation, found)
            if solution is None:
                unsolved.append(equation)
            else:
                found[solution[0]] = solution[1]
                progress = True
        remaining = unsolved
    return remaining


def _solution(equation: Equation, found: dict[str, int]) -> tuple[str, int] | None:
    """The symbol that an equation determines and its value: `a*N + b == actual` with one unknown N."""
    label, axis, size, actual = equation
    open_ = names(size) - found.keys()
    if len(open_) != 1:
        return None
    left = substitute(size, {name: found[name] for name in names(size) if name in found})
    constant, coefficient = Fraction(0), Fraction(0)
    for factor, monomial in terms(left):
        if not monomial:
            constant = Fraction(factor)
        elif len(monomial) == 1 and isinstance(monomial[0], Name):
            coefficient = Fraction(factor)
        else:
            return None
    if coefficient == 0:  # the symbol cancels out at the values of the others
        return None
    value = (actual - constant) / coefficient
    if value.denominator != 1 or value < 0:
        raise ValueError(f"{label}: axis {axis} is {actual}, which {dim_text(size)} cannot be")
    return next(iter(open_)), int(value)


def check_sizes(equations: Sequence[Equation], found: Mapping[str, int]) -> None:
    for label, axis, size, actual in equations:
        if names(size) - found.keys():
            continue
        expected = evaluate(size, found)
        if expected != actual:
            where = "" if isinstance(size, int) else f" ({dim_text(size)})"
            raise ValueError(f"{label}: axis {axis} is {actual}, it must be {expected}{where}")


def check_assumptions(
    bounds: Mapping[str, tuple[int, int | None]],
    equal_dims: Sequence[tuple[Size, Size]],
    sizes: Mapping[str, int],
    demanded_by: Mapping[tuple[Size, Size], str] | None = None,
) -> None:
    """Raises ValueError where `sizes` leave their bounds, or where dims that must be equal are not.

    `demanded_by` names the ONNX node that a pair of `equal_dims` is for.
    """
    for name, (least, greatest) in bounds.items():
        value = sizes.get(name)
        if value is not None and (value < least or (greatest is not None and value > greatest)):
            limit = f"at least {least}" if greatest is None else f"{least} to {greatest}"
            raise ValueError(f"the size {name} is {value}, it must be {limit}")
    for a, b in equal_dims:
        if not (names(a) | names(b)) <= sizes.keys():
            continue
        left, right = evaluate(a, sizes), evaluate(b, sizes)
        if left != right:
            node = (demanded_by or {}).get((a, b))
            because = f" for node '{node}'" if node else ""
            raise ValueError(f"{broken_demand((a, b), sizes)}{because}")
