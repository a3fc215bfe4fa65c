"""Choices between forms of code that mean the same: a pass asks, its rule answers, unless a measurement has an answer.

A pass names what it asks about by a key (the structure of a kernel, as text) and gives every choice that is right for
it, its rule's among them. An answer is the text of one of these, so that no answer can make code that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

T = TypeVar("T")


class Choices(Protocol):
    """Who answers."""

    def choose(self, point: str, subject: str, key: Callable[[], str], rule: T, legal: Callable[[], Iterable[T]]) -> T:
        """One of `legal`, which has `rule`. `point` is what is chosen ("tile", "winograd"), `subject` the name of
        the kernel or value that it is for, `key` its structure. Each choice has a text of its own, by `str`."""
        ...


class Rules:
    """The rules' own answers."""

    def choose(self, point: str, subject: str, key: Callable[[], str], rule: T, legal: Callable[[], Iterable[T]]) -> T:
        """What the rule says."""
        return rule


RULES = Rules()


@dataclass(frozen=True)
class Question:
    """What was asked, with the texts of all choices; those that the pass expects more of come first."""

    point: str
    key: str
    rule: str
    legal: tuple[str, ...]
    subjects: list[str] = field(default_factory=list)
    """The kernels or values that have this key, in order."""


class Answers:
    """Answers by point and key, in text; where there is none, the rule's. Keeps what was asked, once for each key."""

    def __init__(self, known: dict[tuple[str, str], str] | None = None) -> None:
        self.known = dict(known or {})
        self.asked: dict[tuple[str, str], Question] = {}
        self.refused: dict[tuple[str, str], str] = {}
        """Answers that are none of the legal ones: the rule's were taken instead."""

    def choose(self, point: str, subject: str, key: Callable[[], str], rule: T, legal: Callable[[], Iterable[T]]) -> T:
        """The known answer, where it is legal; else the rule's."""
        named = {str(choice): choice for choice in legal()}
        where = (point, key())
        question = self.asked.setdefault(where, Question(*where, str(rule), tuple(named)))
        question.subjects.append(subject)
        answer = self.known.get(where)
        if answer is None:
            return rule
        if answer not in named:
            self.refused[where] = answer
            return rule
        return named[answer]


__all__ = ["RULES", "Answers", "Choices", "Question", "Rules"]
