"""Symbolic sizes as C: exact `int64_t` expressions, and magnitudes in double for overflow checks.

Floor division is C's `/` where both sides are provably of one sign, and a helper of the runtime elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from ir.dims import Dim, FloorDiv, Max, Min, Name, Size, lower_bound, terms

ATOM, UNARY, PRODUCT, SUM = 4, 3, 2, 1
Spell = Callable[[str], str]


def literal(value: int) -> str:
    """An int64 value as a C constant."""
    if value == -(1 << 63):
        return "INT64_MIN"
    return str(value) if -(1 << 31) < value < (1 << 31) else f"INT64_C({value})"


def size_text(size: Size, spell: Spell) -> tuple[str, int]:
    """`size` as C and how tightly the text binds. `spell` gives the C expression (an atom) of each symbol."""
    if not isinstance(size, Dim):
        return literal(size), ATOM if size >= 0 else UNARY
    whole = math.lcm(*(Fraction(c).denominator for c, _ in terms(size)))
    if whole != 1:
        return f"{paren(*size_text(_scaled(size, whole), spell), SUM + 1)} / {whole}", PRODUCT
    rest, remainders = _with_remainders(size)
    pieces = [_remainder_text(num, den, spell) for num, den in remainders]
    pieces += [_term_text(coefficient, atoms, spell) for coefficient, atoms in terms(rest)]
    if len(pieces) == 1:
        sign, text, rank = pieces[0]
        return (f"-{paren(text, rank, UNARY + 1)}", UNARY) if sign == "-" else (text, rank)
    # A leading minus is harder to read than a difference.
    pieces.sort(key=lambda piece: piece[0] == "-")
    text = "".join(f" {sign} {paren(piece, rank, SUM + 1)}" for sign, piece, rank in pieces)
    return text[3:] if text.startswith(" + ") else f"-{text[3:]}", SUM


def paren(text: str, rank: int, least: int) -> str:
    """`text` in parentheses unless it binds at least as tightly as `least`."""
    return text if rank >= least else f"({text})"


def plain_text(size: Size, spell: Spell) -> str:
    """`size` as a C expression that may stand as a function argument or between parentheses."""
    return size_text(size, spell)[0]


def _scaled(size: Dim, factor: int) -> Any:
    return size * factor


def _with_remainders(size: Dim) -> tuple[Size, list[tuple[Size, int]]]:
    """Splits sums `num - den*(num//den)` off: they are `num % den`, which is how they were written."""
    rest: Size = size
    found: list[tuple[Size, int]] = []
    for coefficient, atoms in terms(size):
        if len(atoms) != 1 or not isinstance(atoms[0], FloorDiv) or not isinstance(coefficient, int):
            continue
        num, den = atoms[0].num, atoms[0].den
        if not isinstance(den, int) or coefficient != -den or den <= 1 or not _is_nonnegative(num):
            continue
        own = {monomial: c for c, monomial in terms(rest)}
        if all(own.get(monomial) == c for c, monomial in terms(num) if monomial):
            rest = rest - num + den * (num // den)
            found.append((num, den))
    return rest, found


def _remainder_text(num: Size, den: int, spell: Spell) -> tuple[str, str, int]:
    return "+", f"{paren(*size_text(num, spell), SUM + 1)} % {den}", PRODUCT


def _term_text(coefficient: Any, atoms: tuple[Any, ...], spell: Spell) -> tuple[str, str, int]:
    """Sign, text and rank of one term of a sum."""
    sign = "-" if coefficient < 0 else "+"
    factors = [_atom_text(atom, spell) for atom in atoms]
    if abs(coefficient) != 1 or not factors:
        number = (literal(abs(coefficient)), ATOM)
        factors = [*factors, number]
    if len(factors) == 1:
        text, rank = factors[0]
        return sign, text, rank
    return sign, " * ".join(paren(text, rank, UNARY) for text, rank in factors), PRODUCT


def _atom_text(atom: Any, spell: Spell) -> tuple[str, int]:
    match atom:
        case Name():
            return spell(atom.name), ATOM
        case FloorDiv():
            return _quotient_text(atom, spell)
        case Min():
            return _extremum_text("sesame_min_i64", atom.args, spell), ATOM
        case Max():
            return _extremum_text("sesame_max_i64", atom.args, spell), ATOM
    raise TypeError(f"no C for {type(atom).__name__}")


def _quotient_text(atom: FloorDiv, spell: Spell) -> tuple[str, int]:
    num, den = size_text(atom.num, spell), size_text(atom.den, spell)
    if _is_nonnegative(atom.num) and (lower_bound(atom.den) or 0) >= 1:
        return f"{paren(*num, PRODUCT)} / {paren(*den, UNARY)}", PRODUCT
    return f"sesame_floordiv_i64({num[0]}, {den[0]})", ATOM


def denominators(size: Size) -> list[Size]:
    """What a size divides by that may be 0."""
    found: list[Size] = []
    for _, atoms in terms(size) if isinstance(size, Dim) else ():
        for atom in atoms:
            match atom:
                case FloorDiv():
                    found += [*denominators(atom.num), *denominators(atom.den)]
                    found += [atom.den] if (lower_bound(atom.den) or 0) < 1 else []
                case Min() | Max():
                    found += [den for arg in atom.args for den in denominators(arg)]
    return list(dict.fromkeys(found))


def _extremum_text(function: str, args: tuple[Size, ...], spell: Spell) -> str:
    text = plain_text(args[0], spell)
    for arg in args[1:]:
        text = f"{function}({text}, {plain_text(arg, spell)})"
    return text


def _is_nonnegative(size: Size) -> bool:
    low = lower_bound(size)
    return low is not None and low >= 0


def magnitude_text(size: Size, spell: Spell) -> str:
    """A double that is at least the absolute value of `size`, and of each partial result of computing it."""
    if not isinstance(size, Dim):
        return repr(float(abs(size)))
    pieces = []
    for coefficient, atoms in terms(size):
        factors = [_magnitude_of_atom(atom, spell) for atom in atoms]
        number = float(abs(coefficient))
        if number != 1 or not factors:
            factors.append(repr(number))
        pieces.append(" * ".join(factors))
    return " + ".join(pieces)


def _magnitude_of_atom(atom: Any, spell: Spell) -> str:
    match atom:
        case Name():
            return f"(double){spell(atom.name)}"
        case FloorDiv():
            return f"({magnitude_text(atom.num, spell)} + 1.0)"
        case _:
            return "(" + " + ".join(magnitude_text(arg, spell) for arg in atom.args) + ")"
