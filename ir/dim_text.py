"""The text of symbolic sizes: quoting of names, and a small precedence parser for expressions over them.

The parser knows no algebra: it applies Python's operators to what the caller's `symbol` and `functions` return, so
that this module imports nothing and `ir.dims` can use it. It must never evaluate text by any other means, nor recurse
deeper than `MAX_DEPTH`: the text may come from an untrusted model.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

MAX_DEPTH = 64
MAX_LENGTH = 4096
MAX_BITS = 512
MAX_POWER = 64

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[0-9]+(?:\.[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_.:]*)
      | (?P<quoted>`(?:[^`\\]|\\.)*`)
      | (?P<op>\*\*|//|[-+*/%(),])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]{1,6})\}|(.))", re.DOTALL)

Function = tuple[Callable[..., Any], int, int]
"""A callable with its least and greatest number of arguments."""


def quote_name(name: str) -> str:
    """`name` itself if it is an identifier with dots, else between backticks, with what does not print escaped."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return "`" + "".join(_escape(char) for char in name) + "`"


def _escape(char: str) -> str:
    if char in "`\\":
        return "\\" + char
    return char if char.isprintable() else f"\\u{{{ord(char):x}}}"


def _unquote(text: str) -> str:
    return _ESCAPE.sub(_unescape, text[1:-1])


def _unescape(match: re.Match[str]) -> str:
    code, char = match.groups()
    if code is not None:
        return chr(int(code, 16))
    if char not in "`\\":
        raise ValueError(f"unknown escape \\{char} in a quoted name")
    return char


def parse_expression(text: str, symbol: Callable[[str], Any], functions: Mapping[str, Function]) -> Any:
    """Applies the expression `text`, with Python's precedence, to symbols and functions.

    Returns an int, a Fraction, or what the operators on symbols return. Raises ValueError for text that is no
    expression, is longer than `MAX_LENGTH`, or nests deeper than `MAX_DEPTH`. What the operators and functions raise
    passes through.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"an expression of {len(text)} characters; at most {MAX_LENGTH} are read")
    parser = _Parser(text, symbol, functions)
    value = parser.sum()
    if parser.kind != "end":
        raise parser.unexpected()
    return value


def _true_divide(left: Any, right: Any) -> Any:
    return (Fraction(left) if isinstance(left, int) else left) / right


_PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "*": operator.mul, "/": _true_divide, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip
_SUMS: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub}


class _Parser:
    """Recursive descent over the tokens of one text; `kind` and `value` are those of the token not yet consumed."""

    def __init__(self, text: str, symbol: Callable[[str], Any], functions: Mapping[str, Function]) -> None:
        self.text = text
        self.symbol = symbol
        self.functions = functions
        self.depth = 0
        self.next_at = 0
        self.advance()

    def advance(self) -> None:
        self.start = self.next_at
        if self.start == len(self.text):
            self.kind, self.value = "end", ""
            return
        match = _TOKEN.match(self.text, self.start)
        if match is None:
            raise ValueError(f"unexpected character {self.text[self.start]!r} at {self.start} in {self.text!r}")
        self.next_at = match.end()
        self.kind, self.value = match.lastgroup or "", match.group()
        if self.kind == "space":
            self.advance()

    def unexpected(self) -> ValueError:
        return ValueError(f"unexpected {self.value or 'end'!r} at {self.start} in {self.text!r}")

    def expect(self, op: str) -> None:
        if self.kind != "op" or self.value != op:
            raise self.unexpected()
        self.advance()

    def sum(self) -> Any:
        return self._left_associative(_SUMS, self.product)

    def product(self) -> Any:
        return self._left_associative(_PRODUCTS, self.signed)

    def _left_associative(self, operators: Mapping[str, Callable[[Any, Any], Any]], operand: Callable[[], Any]) -> Any:
        left = operand()
        while self.kind == "op" and self.value in operators:
            apply = operators[self.value]
            self.advance()
            left = _limited(apply(left, operand()))
        return left

    def signed(self) -> Any:
        negative = False
        while self.kind == "op" and self.value in ("-", "+"):
            negative ^= self.value == "-"
            self.advance()
        value = self.power()
        return -value if negative else value

    def power(self) -> Any:
        base = self.primary()
        if self.kind != "op" or self.value != "**":
            return base
        self.advance()
        exponent = self.primary()
        if not isinstance(exponent, int) or not 0 <= exponent <= MAX_POWER:
            raise ValueError(f"an exponent must be a number from 0 to {MAX_POWER} in {self.text!r}")
        return _limited(base**exponent)

    def primary(self) -> Any:
        kind, value = self.kind, self.value
        if kind == "op" and value == "(":
            return self.arguments(1, 1)[0]
        if kind not in ("number", "name", "quoted"):
            raise self.unexpected()
        self.advance()
        if kind == "number":
            return _limited(Fraction(value) if "." in value else int(value))
        if kind == "quoted":
            return self.symbol(_unquote(value))
        if self.kind == "op" and self.value == "(":
            return self.call(value)
        return self.symbol(value)

    def call(self, name: str) -> Any:
        if name not in self.functions:
            raise ValueError(f"unknown function {name!r} in {self.text!r}")
        function, least, most = self.functions[name]
        return _limited(function(*self.arguments(least, most)))

    def arguments(self, least: int, most: int) -> list[Any]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"an expression nested deeper than {MAX_DEPTH} levels")
        self.expect("(")
        values = [self.sum()]
        while self.kind == "op" and self.value == ",":
            self.advance()
            values.append(self.sum())
        self.expect(")")
        self.depth -= 1
        if not least <= len(values) <= most:
            raise ValueError(f"wrong number of arguments before {self.start} in {self.text!r}")
        return values


def _limited(value: Any) -> Any:
    parts = (value,) if isinstance(value, int) else ()
    if isinstance(value, Fraction):
        parts = (value.numerator, value.denominator)
    if any(part.bit_length() > MAX_BITS for part in parts):
        raise ValueError(f"a number of more than {MAX_BITS} bits")
    return value
