"""What a run of a model in C returns: names of statuses, and what they say. Their numbers are their positions."""

from __future__ import annotations

STATUSES = (
    ("OK", "no error"),
    ("ERROR_NULL", "a pointer is null"),
    ("ERROR_ARENA_TOO_SMALL", "the arena is smaller than arena_bytes() says"),
    ("ERROR_ARENA_ALIGN", "the arena or the weights are not aligned to 64 bytes"),
    ("ERROR_DIMS", "a dimension is out of its bounds, or dimensions that must agree do not"),
    ("ERROR_INDEX", "an index in the input data lies outside the tensor that it indexes, or a string is no number"),
    ("ERROR_LIMIT", "a size that depends on data is beyond its limit"),
    ("ERROR_UNSUPPORTED", "an input is of a form that this code does not read"),
)
OF_VALUES = ("ERROR_DIMS", "ERROR_INDEX", "ERROR_LIMIT")
"""Those that the values which a caller gives can lead to."""
OF_FORM = "ERROR_UNSUPPORTED"
"""The one of an input that is as it should be, and that this code does not read."""


def status_name(status: int) -> str:
    """The name of a status; "" for a number that is none."""
    return STATUSES[status][0] if 0 <= status < len(STATUSES) else ""


__all__ = ["OF_FORM", "OF_VALUES", "STATUSES", "status_name"]
