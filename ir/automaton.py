"""Deterministic automata over the bytes of UTF-8 text, from trees of regular expressions.

Thompson's construction over ranges of bytes, then sets of its states, as far as bytes can lead. Steps at an edge, such
as the end of the text, are taken when the byte that follows is known; a set goes with whether a word stands before it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ir.regex import WORD, Choice, Edge, Letters, Ranges, RegexError, Repeat, Sequence, Tree, parse

_MOST_PARTS = 200_000
_MOST_STATES = 5_000
_MOST_WORK = 3_000_000
"""Bound on the states and steps that are looked at, some second of them: few states may each be a set of many."""


@dataclass(frozen=True)
class Automaton:
    """From state 0, a byte leads from state s to table[s, classes[byte]]; `accepts[s]` where the text may end there."""

    classes: np.ndarray
    table: np.ndarray
    accepts: np.ndarray

    def matches(self, data: bytes) -> bool:
        """Whether the automaton accepts all of `data`."""
        state = 0
        for byte in data:
            state = self.table[state, self.classes[byte]]
        return bool(self.accepts[state])


@functools.lru_cache(256)
def byte_ranges(ranges: Ranges) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Sequences of ranges of bytes that are the UTF-8 of the code points in `ranges`."""
    found: list[tuple[tuple[int, int], ...]] = []
    stack = [(low, high) for low, high in reversed(ranges)]
    while stack:
        low, high = stack.pop()
        cut = next((limit for limit in (0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF) if low <= limit < high), None)
        if cut is not None:
            stack += [(cut + 1, high), (low, cut)]
            continue
        if 0xD800 <= low <= 0xDFFF:
            continue
        # Below one byte of the end, all of its values must be there, or the bytes before it must be equal.
        for places in range(1, 4):
            mask = (1 << 6 * places) - 1
            if high > 0x7F and (low & ~mask) != (high & ~mask):
                if low & mask:
                    stack += [((low | mask) + 1, high), (low, low | mask)]
                    break
                if high & mask != mask:
                    stack += [(high & ~mask, high), (low, (high & ~mask) - 1)]
                    break
        else:
            found.append(tuple(zip(chr(low).encode(), chr(high).encode())))
    return tuple(found)


@dataclass
class _Parts:
    """The automaton of Thompson: for each state, steps by ranges of bytes, free steps, and those at an edge."""

    steps: list[list[tuple[int, int, int]]] = field(default_factory=list)
    free: list[list[int]] = field(default_factory=list)
    edges: list[list[tuple[str, int]]] = field(default_factory=list)
    has_edges: bool = False
    has_words: bool = False
    work: int = 0

    def spend(self, work: int) -> None:
        """Counts what is looked at. Raises RegexError where that is too much."""
        self.work += work
        if self.work > _MOST_WORK:
            raise RegexError(f"making tables of the pattern takes more than {_MOST_WORK} steps")

    def state(self) -> int:
        if len(self.steps) >= _MOST_PARTS:
            raise RegexError(f"the pattern has more than {_MOST_PARTS} parts")
        self.spend(5)
        self.steps.append([])
        self.free.append([])
        self.edges.append([])
        return len(self.steps) - 1

    def add(self, tree: Tree, start: int) -> int:
        """Adds what a tree matches from `start` on; the state at its end."""
        match tree:
            case Letters(ranges):
                return self._letters(ranges, start)
            case Sequence(parts):
                for part in parts:
                    start = self.add(part, start)
                return start
            case Choice(parts):
                end = self.state()
                for part in parts:
                    self.free[self.add(part, start)].append(end)
                return end
            case Repeat(part, least, most):
                return self._repeat(part, least, most, start)
            case Edge(kind):
                end = self.state()
                self.edges[start].append((kind, end))
                self.has_edges = True
                self.has_words |= kind in ("boundary", "inside")
                return end

    def _letters(self, ranges: Ranges, start: int) -> int:
        end = self.state()
        tails: dict[tuple[tuple[int, int], ...], int] = {(): end}
        sequences = byte_ranges(ranges)
        self.spend(len(sequences))
        for sequence in sequences:
            for at in range(len(sequence) - 1, 0, -1):
                if sequence[at:] not in tails:
                    tails[sequence[at:]] = self.state()
                    low, high = sequence[at]
                    self.steps[tails[sequence[at:]]].append((low, high, tails[sequence[at + 1 :]]))
            self.steps[start].append((*sequence[0], tails[sequence[1:]]))
        return end

    def _repeat(self, part: Tree, least: int, most: int, start: int) -> int:
        for _ in range(least):
            start = self.add(part, start)
        end = self.state()
        if most < 0:
            again = self.state()
            self.free[start].append(again)
            self.free[self.add(part, again)].append(again)
            self.free[again].append(end)
            return end
        self.free[start].append(end)
        for _ in range(most - least):
            inner = self.state()
            self.free[start].append(inner)
            start = self.add(part, inner)
            self.free[start].append(end)
        return end

    def reachable(self, states: Iterable[int], edges: frozenset[str] = frozenset()) -> frozenset[int]:
        """These states and those that they lead to without a byte, by steps at `edges` also; of them, those that more
        than such steps lead on from, and the last one."""
        found, stack = set(states), list(states)
        while stack:
            state = stack.pop()
            following = [to for kind, to in self.edges[state] if kind in edges] if edges else []
            new = {to for to in (*self.free[state], *following) if to not in found}
            stack += new
            found |= new
        self.spend(len(found))
        return frozenset(state for state in found if self.steps[state] or self.edges[state] or not self.free[state])


@dataclass
class _Subsets:
    """The sets of states of `parts` that bytes lead to, each with whether a word stands before it, in order of their
    numbers; `spans` has the steps of `parts` by classes, from the first to the one after the last."""

    parts: _Parts
    final: int
    spans: list[list[tuple[int, int, int]]]
    is_word: list[bool]
    order: list[tuple[frozenset[int], bool]] = field(default_factory=list)
    numbers: dict[tuple[frozenset[int], bool], int] = field(default_factory=dict)
    closed: dict[frozenset[int], frozenset[int]] = field(default_factory=dict)

    def number(self, states: frozenset[int], word: bool) -> int:
        """The number of what the steps to `states` lead to, after a letter of a word or another."""
        if states not in self.closed:
            self.closed[states] = self.parts.reachable(states)
        following = (self.closed[states], word and self.parts.has_words)
        if following not in self.numbers:
            self.numbers[following] = len(self.order)
            self.order.append(following)
            if len(self.order) > _MOST_STATES:
                raise RegexError(f"the pattern needs more than {_MOST_STATES} states")
        return self.numbers[following]

    def at_edges(self, states: frozenset[int], edges: set[str]) -> frozenset[int]:
        return self.parts.reachable(states, frozenset(edges)) if self.parts.has_edges else states

    def row(self, states: frozenset[int], after_word: bool, begin: set[str]) -> tuple[list[int], bool]:
        """For each class, the number that its bytes lead to; and whether the text may end here."""
        led: list[set[int]] = [set() for _ in self.is_word]
        for word in (False, True) if self.parts.has_words else (False,):
            edge = "boundary" if word != after_word else "inside"
            for state in self.at_edges(states, begin | {edge}):
                for first, last, to in self.spans[state]:
                    self.parts.spend(last - first)
                    for number in range(first, last):
                        if self.is_word[number] == word or not self.parts.has_words:
                            led[number].add(to)
        ends = self.at_edges(states, begin | {"end", "boundary" if after_word else "inside"})
        self.parts.spend(len(led))
        return [self.number(frozenset(to), word) for to, word in zip(led, self.is_word)], self.final in ends


@functools.lru_cache(16)
def automaton(pattern: str) -> Automaton:
    """The automaton of a pattern. Raises RegexError, also where it would be too large, or take too long to make."""
    tree = parse(pattern)
    try:
        return _automaton(tree)
    except RegexError as error:
        raise RegexError(f"{error}: {pattern!r:.100}") from error


def _automaton(tree: Tree) -> Automaton:
    parts = _Parts()
    first = parts.state()
    final = parts.add(tree, first)
    classes, bytes_of_class = _classes(parts)
    spans = [[(int(classes[low]), int(classes[high]) + 1, to) for low, high, to in steps] for steps in parts.steps]
    subsets = _Subsets(parts, final, spans, [_is_word(byte) for byte in bytes_of_class])
    # The first state is one of its own: no byte leads to the begin of the text.
    subsets.order.append((parts.reachable([first]), False))
    rows: list[list[int]] = []
    accepts: list[bool] = []
    for states, after_word in subsets.order:
        row, accepted = subsets.row(states, after_word, set() if rows else {"begin"})
        rows.append(row)
        accepts.append(accepted)
    return Automaton(classes, np.array(rows, np.int32), np.array(accepts, np.bool_))


def _is_word(byte: int) -> bool:
    return any(low <= byte <= high for low, high in WORD)


def _classes(parts: _Parts) -> tuple[np.ndarray, list[int]]:
    """For each byte the number of its class, and a byte of each class: no step tells the bytes of a class apart."""
    cuts = {0, *(low for steps in parts.steps for low, _, _ in steps)}
    cuts |= {high + 1 for steps in parts.steps for _, high, _ in steps if high < 255}
    if parts.has_words:
        cuts |= {cut for low, high in WORD for cut in (low, high + 1)}
    ordered = sorted(cuts)
    classes = np.searchsorted(ordered, np.arange(256), side="right") - 1
    return classes.astype(np.uint8), ordered


__all__ = ["Automaton", "automaton", "byte_ranges"]
