"""C spellings of foreign text: identifiers, comments, string literals, and indented lines.

Names come from models and may be hostile; nothing of them reaches a C file but through here. This module knows no IR.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Keywords of C and C++ (headers serve both), and macros without a prefix that standard headers or compilers define.
_RESERVED_WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr const_cast
continue decltype default delete do double dynamic_cast else enum explicit export extern false float for friend goto
if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public
register reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast struct
switch template this thread_local throw true try typedef typeid typename typeof union unsigned using virtual void
volatile wchar_t while xor xor_eq
alloca assert complex errno far fileno huge I imaginary interface isfinite isinf isnan isnormal kill_dependency
linux main memcpy memset near noreturn offsetof pascal signbit small stderr stdin stdout unix vector pixel
BUFSIZ EOF NAN NULL INFINITY TRUE FALSE BIG_ENDIAN LITTLE_ENDIAN BYTE_ORDER PDP_ENDIAN DOMAIN OVERFLOW UNDERFLOW
SING PLOSS TLOSS
int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t size_t ptrdiff_t intptr_t uintptr_t
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())
_MACRO_PREFIX = re.compile(
    r"(U?INT(\d+|MAX|PTR|_FAST\d+|_LEAST\d+)?_(C|MAX|MIN)|(U|S)?(CHAR|SHRT|INT|LONG|LLONG)_\w+|U(LONG|LLONG)_MAX|E[A-Z0-9]{2,}"
    r"|(ATOMIC|CLOCK|DBL|EXIT|FLT|FP|HUGE|LDBL|MATH|M|PTRDIFF|RAND|SEEK|SIG|SIZE|SSIZE|WCHAR|WINT|TIME|TIMER)_\w+"
    r"|[fiu]\d+x\d+(_at)?|\w+_MAX|atomic_\w+|is(greater|less|unordered)\w*|fpclassify|sesame_\w+|SESAME_\w+|_.*)"
)


def identifier(text: str, fallback: str = "x") -> str:
    """A C identifier near to `text`: ASCII, no keyword, no macro of a standard header, at most 60 characters."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:60].rstrip("_")
    if not name:
        name = fallback
    if name[0].isdigit():
        name = f"{fallback}{name}"
    if name in _RESERVED or _MACRO_PREFIX.fullmatch(name):
        name += "_"
        if name.startswith(("sesame_", "SESAME_")):
            name = f"{fallback}_{name}"
    return name


class Identifiers:
    """Gives out identifiers of one C scope, each once, near to what is asked for."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._given: dict[str, str] = {}
        self._next: dict[str, int] = {}

    def fresh(self, text: str, fallback: str = "x") -> str:
        """A new identifier near to `text`."""
        stem = identifier(text, fallback)
        name, count = stem, self._next.get(stem, 1)
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._next[stem] = count
        self._taken.add(name)
        return name

    def of(self, text: str, fallback: str = "x") -> str:
        """The identifier that stands for `text`: the same whenever the same text is given."""
        if text not in self._given:
            self._given[text] = self.fresh(text, fallback)
        return self._given[text]


def comment(text: str) -> str:
    """`text` for the inside of a comment: one line of printable ASCII that neither ends the comment nor the line."""
    plain = "".join(ch if " " <= ch <= "~" else ch.encode("unicode_escape").decode() for ch in text)
    plain = plain.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    return plain + " " if plain.endswith("\\") else plain


def string_literal(text: str) -> str:
    """`text` as a C string literal of its UTF-8 bytes."""
    out: list[str] = []
    for byte in text.encode("utf-8", "surrogatepass"):
        char = chr(byte)
        if char in '"\\?' or not " " <= char <= "~":
            out.append(f"\\{byte:03o}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


class Writer:
    """Lines of C, indented by the block they stand in."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self.depth = depth

    def line(self, text: str = "") -> None:
        """Adds a line; an empty one stays empty."""
        self.lines.append("  " * self.depth + text if text else "")

    def extend(self, lines: Iterable[str]) -> None:
        """Adds lines that are indented already."""
        self.lines.extend(lines)

    @contextmanager
    def block(self, head: str, tail: str = "}") -> Iterator[None]:
        """`head {`, then what is written inside, one step further in, then `tail`."""
        self.line(f"{head} {{" if head else "{")
        self.depth += 1
        yield
        self.depth -= 1
        self.line(tail)

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def wrapped(head: str, parts: list[str], tail: str, width: int = 118) -> list[str]:
    """`head` + comma-separated parts + `tail` over as many lines as needed, aligned with the first part."""
    lines: list[str] = []
    current = head
    for i, part in enumerate(parts):
        piece = part + (", " if i + 1 < len(parts) else tail)
        if len(current) + len(piece.rstrip()) > width and current.strip() and current != head:
            lines.append(current.rstrip())
            current = " " * min(len(head), 40)
        current += piece
    if not parts:
        current += tail
    lines.append(current.rstrip())
    return lines
