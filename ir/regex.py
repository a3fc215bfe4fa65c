"""Regular expressions in the syntax of RE2, as trees of character sets.

What is not regular (references back, looking around) is refused, and so are forms of RE2 that are left out here: single
bytes, several lines, and scripts. The tree is the meaning: `ir.automaton` makes tables of it.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal, TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Code points from the first to the second of each pair, ascending, apart from one another."""

LAST = sys.maxunicode
MOST_REPEATS = 1000
_DEPTH = 200
_MOST_RANGES = 200_000
_COUNT = r"\{(0|[1-9]\d*)(?:(,)(0|[1-9]\d*|))?\}"
"""A number of repetitions; in RE2 braces with a number that begins with a 0 are letters, as others are."""


class RegexError(ValueError):
    """A pattern that cannot be read; the message says why, and where."""


@dataclass(frozen=True)
class Letters:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True)
class Sequence:
    """One after the other; nothing where there are no parts."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Choice:
    """One of several."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Repeat:
    """`part` at least `least` times, and at most `most`; -1 is any number."""

    part: Tree
    least: int
    most: int


@dataclass(frozen=True)
class Edge:
    """A place between characters: the "begin" or "end" of the text, a "boundary" of a word, or the "inside" of what is
    a word or of what is none."""

    kind: Literal["begin", "end", "boundary", "inside"]


Tree: TypeAlias = Letters | Sequence | Choice | Repeat | Edge


def normal(ranges: list[tuple[int, int]]) -> Ranges:
    """Ranges in order, those that touch made one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)


def inverse(ranges: Ranges) -> Ranges:
    """All code points that are not in `ranges`."""
    found, start = [], 0
    for low, high in ranges:
        if low > start:
            found.append((start, low - 1))
        start = high + 1
    return tuple([*found, (start, LAST)] if start <= LAST else found)


def _chars(text: str) -> Ranges:
    return normal([(ord(c), ord(c)) for c in text])


_DIGIT, _SPACE = ((48, 57),), _chars("\t\n\f\r ")
_LOWER, _UPPER = ((97, 122),), ((65, 90),)
WORD = normal([*_DIGIT, *_LOWER, *_UPPER, (95, 95)])
_PERL = {"d": _DIGIT, "s": _SPACE, "w": WORD}
_GRAPH = ((33, 126),)
_PUNCTUATION = normal([(33, 47), (58, 64), (91, 96), (123, 126)])
_POSIX: dict[str, Ranges] = {
    "alnum": normal([*_DIGIT, *_LOWER, *_UPPER]), "alpha": normal([*_LOWER, *_UPPER]), "ascii": ((0, 127),),
    "blank": _chars("\t "), "cntrl": normal([(0, 31), (127, 127)]), "digit": _DIGIT, "graph": _GRAPH,
    "lower": _LOWER, "print": ((32, 126),), "punct": _PUNCTUATION, "space": normal([*_SPACE, (11, 11)]),
    "upper": _UPPER, "word": WORD, "xdigit": normal([*_DIGIT, (65, 70), (97, 102)]),
}  # fmt: skip
_CONTROL = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_REFUSED = {"C": "single bytes", "1": "references back", "k": "references back"}


@functools.cache
def _categories() -> dict[str, list[tuple[int, int]]]:
    """The code points of each general category."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, codes in itertools.groupby(range(LAST + 1), lambda code: unicodedata.category(chr(code))):
        run = list(codes)
        found.setdefault(name, []).append((run[0], run[-1]))
    return found


@functools.cache
def _category(name: str) -> Ranges:
    """The code points whose general category begins with `name`."""
    return normal([pair for full, ranges in _categories().items() if full.startswith(name) for pair in ranges])


@functools.cache
def _cases() -> dict[int, set[int]]:
    """For each letter with cases, the code points that differ from it in case only."""
    groups: dict[str, set[int]] = {}
    for code in range(LAST + 1):
        letter = chr(code)
        folded = letter.casefold()
        if len(folded) == 1 and (folded != letter or letter.upper() != letter):
            groups.setdefault(folded, {ord(folded)}).add(code)
    return {code: group for group in groups.values() if len(group) > 1 for code in group}


@functools.lru_cache(256)
def _any_case(ranges: Ranges) -> Ranges:
    table, codes = _cases(), _cased()
    within = (codes[bisect_left(codes, low) : bisect_right(codes, high)] for low, high in ranges)
    more = [(c, c) for found in within for code in found for c in table[code]]
    return normal([*ranges, *more])


@functools.cache
def _cased() -> list[int]:
    return sorted(_cases())


@functools.lru_cache(64)
def parse(pattern: str) -> Tree:
    """The tree of a pattern. Raises RegexError."""
    return _Reader(pattern).read()


class _Reader:
    """A pattern that is read from left to right; `flags` are those in force."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.flags: set[str] = set()
        self.depth = 0
        self.ranges = 0

    def error(self, message: str) -> RegexError:
        return RegexError(f"{message} at position {self.at} of the pattern {self.pattern!r:.100}")

    def take(self, text: str) -> bool:
        """Steps over `text` where it stands next."""
        found = self.pattern.startswith(text, self.at)
        self.at += len(text) if found else 0
        return found

    def match(self, form: str) -> re.Match[str] | None:
        """Steps over what matches `form` next."""
        found = re.compile(form, re.ASCII).match(self.pattern, self.at)
        self.at = found.end() if found else self.at
        return found

    def read(self) -> Tree:
        tree = self.choice()
        if self.at < len(self.pattern):
            raise self.error("an unexpected )")
        return tree

    def choice(self) -> Tree:
        self.depth += 1
        if self.depth > _DEPTH:
            raise self.error(f"groups nested more than {_DEPTH} deep")
        parts = [self.sequence()]
        while self.take("|"):
            parts.append(self.sequence())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def sequence(self) -> Tree:
        parts: list[Tree] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            if quoted := self.match(r"\\Q([\s\S]*?)(?:\\E|\Z)"):
                parts += [self.letter(ord(c)) for c in quoted[1]]
            elif flags := self.match(r"\(\?([a-zA-Z]*)(?:-([a-zA-Z]+))?\)"):
                self.set_flags(flags[1], flags[2] or "")
            else:
                parts.append(self.repeated(self.atom()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def repeated(self, part: Tree) -> Tree:
        found = self.match(f"([*+?])|{_COUNT}")
        if not found:
            return part
        if found[1]:
            least, most = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}[found[1]]
        else:
            if max(len(found[2]), len(found[4] or "")) > len(str(MOST_REPEATS)):
                raise self.error(f"a repetition of more than {MOST_REPEATS} times")
            least = int(found[2])
            most = int(found[4]) if found[4] else -1 if found[3] else least
        if least > MOST_REPEATS or most > MOST_REPEATS or (most >= 0 and least > most):
            raise self.error(f"a repetition of {least} to {most} times")
        self.take("?")  # the shorter or the longer way: the whole text matches or does not
        if self.match(f"[*+?]|{_COUNT}"):
            raise self.error("a repetition of a repetition")
        return Repeat(part, least, most)

    def set_flags(self, on: str, off: str) -> None:
        unknown = sorted(set(on + off) - set("isUm"))
        if unknown or "m" in on:
            raise self.error("several lines (flag m) are not supported" if not unknown else f"the flag {unknown[0]}")
        self.flags = (self.flags | set(on)) - set(off)

    def letter(self, code: int) -> Letters:
        return self.letters(((code, code),))

    def letters(self, ranges: Ranges) -> Letters:
        return self.counted(_any_case(ranges) if "i" in self.flags else ranges)

    def counted(self, ranges: Ranges) -> Letters:
        """A set of characters, as far as those of a pattern are few."""
        self.ranges += len(ranges)
        if self.ranges > _MOST_RANGES:
            raise self.error(f"more than {_MOST_RANGES} ranges of characters")
        return Letters(ranges)

    def atom(self) -> Tree:
        if self.take("("):
            return self.group()
        if self.take("["):
            return self.bracket()
        if self.take("."):
            return Letters(((0, LAST),) if "s" in self.flags else inverse(((10, 10),)))
        if self.take("^") or self.take("\\A"):
            return Edge("begin")
        if self.take("$") or self.take("\\z"):
            return Edge("end")
        if self.take("\\b"):
            return Edge("boundary")
        if self.take("\\B"):
            return Edge("inside")
        if self.pattern[self.at] == "\\":
            return self.letters(self.escape())
        if self.pattern[self.at] in "*+?":
            raise self.error("a repetition of nothing")
        self.at += 1
        return self.letter(ord(self.pattern[self.at - 1]))

    def group(self) -> Tree:
        kept = set(self.flags)
        if self.match(r"\?P?<\w+>"):
            pass
        elif found := self.match(r"\?([a-zA-Z]*)(?:-([a-zA-Z]+))?:"):
            self.set_flags(found[1], found[2] or "")
        elif self.match(r"\?<?[=!]"):
            raise self.error("looking around is not regular, and not supported")
        elif self.match(r"\?P="):
            raise self.error("references back are not regular, and not supported")
        elif self.take("?"):
            raise self.error("an unknown kind of group")
        tree = self.choice()
        if not self.take(")"):
            raise self.error("a missing )")
        self.flags = kept
        return tree

    def bracket(self) -> Tree:
        is_inverse = self.take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self.take("]"):
            if self.at >= len(self.pattern):
                raise self.error("a missing ]")
            first = False
            ranges += self.bracket_item()
        found = normal(ranges)
        if "i" in self.flags:
            found = _any_case(found)
        return self.counted(inverse(found) if is_inverse else found)

    def bracket_item(self) -> Ranges:
        """A class, a letter, or a range of letters."""
        if named := self.match(r"\[:(\^?)(\w+):\]"):
            if named[2] not in _POSIX:
                raise self.error(f"the unknown class {named[0]}")
            return inverse(_POSIX[named[2]]) if named[1] else _POSIX[named[2]]
        low = self.bracket_letter()
        if len(low) != 1 or low[0][0] != low[0][1] or not re.match(r"-[^\]]", self.pattern[self.at : self.at + 2]):
            return low
        self.at += 1
        high = self.bracket_letter()
        if len(high) != 1 or high[0][0] != high[0][1] or high[0][0] < low[0][0]:
            raise self.error("a range that ends before it begins, or at no letter")
        return ((low[0][0], high[0][0]),)

    def bracket_letter(self) -> Ranges:
        if self.pattern[self.at] == "\\":
            return self.escape()
        self.at += 1
        code = ord(self.pattern[self.at - 1])
        return ((code, code),)

    def escape(self) -> Ranges:
        """The characters that a backslash and what follows stand for."""
        if found := self.match(r"\\([dswDSW])"):
            ranges = _PERL[found[1].lower()]
            return ranges if found[1].islower() else inverse(ranges)
        if found := self.match(r"\\([pP])(?:\{(\^?)(\w+)\}|(\w))"):
            name = found[3] or found[4]
            ranges = ((0, LAST),) if name == "Any" else _category(name)
            if not ranges:
                raise self.error(f"the class {name}: of the classes of Unicode, general categories are supported")
            return inverse(ranges) if (found[1] == "P") != bool(found[2]) else ranges
        if found := self.match(r"\\([aftnrv])"):
            code = _CONTROL[found[1]]
        elif found := self.match(r"\\x(?:\{([0-9a-fA-F]{1,6})\}|([0-9a-fA-F]{2}))"):
            code = int(found[1] or found[2], 16)
        elif found := self.match(r"\\(0[0-7]{0,2}|[1-7][0-7]{1,2})"):
            code = int(found[1], 8)
        elif found := self.match(r"\\([^\w\s]|_)"):
            code = ord(found[1])
        else:
            after = self.pattern[self.at + 1 : self.at + 2]
            what = _REFUSED.get("1" if after.isdigit() else after)
            raise self.error(f"{what} are not supported" if what else f"the unknown escape \\{after}")
        if code > LAST:
            raise self.error("a code beyond Unicode")
        return ((code, code),)


_PYTHON_EDGES = {
    "begin": r"\A", "end": r"\Z",
    "boundary": "(?:(?<=[0-9A-Za-z_])(?![0-9A-Za-z_])|(?<![0-9A-Za-z_])(?=[0-9A-Za-z_]))",
    "inside": "(?:(?<=[0-9A-Za-z_])(?=[0-9A-Za-z_])|(?<![0-9A-Za-z_])(?![0-9A-Za-z_]))",
}  # fmt: skip


def python_pattern(tree: Tree) -> str:
    """The tree as a pattern of Python's `re`."""
    match tree:
        case Letters(ranges):
            return "[" + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges) + "]" if ranges else "(?!)"
        case Sequence(parts):
            return "".join(map(python_pattern, parts))
        case Choice(parts):
            return "(?:" + "|".join(map(python_pattern, parts)) + ")"
        case Repeat(part, least, most):
            return f"(?:{python_pattern(part)}){{{least},{'' if most < 0 else most}}}"
        case Edge(kind):
            return _PYTHON_EDGES[kind]


__all__ = [
    "WORD", "Choice", "Edge", "Letters", "Ranges", "RegexError", "Repeat", "Sequence", "Tree", "inverse", "normal",
    "parse", "python_pattern",
]  # fmt: skip
