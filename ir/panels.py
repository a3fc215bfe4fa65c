"""Weights in panels of columns, as the inner loops of products read them: laid out while they are written, a few panels
at a time, so that no weight is ever held twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ir.blob import CHUNK, Blob, DeferredBlob, stored


class PanelBlob(DeferredBlob):
    """`source`, seen as rest x columns, in panels of `factor` columns, the last one filled up with zeros: panel first,
    then `rest`, then the columns of the panel. Made when it is emitted.

    With a `depth`, that many entries of an axis of `rest`, counted from its end, lie side by side in each column.
    """

    def __init__(self, source: Blob, rest: tuple[int, ...], factor: int, depth: int = 1, axis: int = -1) -> None:
        self.rest = rest
        self.factor = factor
        self.depth = depth
        self.axis = axis % len(rest)
        self.columns = source.elements // max(1, math.prod(rest))
        *front, along = rest[: self.axis + 1]
        inner = (*rest, factor) if depth == 1 else (*front, along // depth, *rest[self.axis + 1 :], factor, depth)
        shape = (-(-self.columns // factor), *inner)
        super().__init__("panels", self._lay_out, (source,), source.dtype, shape, params=(rest, factor, depth, axis))

    def _lay_out(self, array: np.ndarray) -> np.ndarray:
        panels = np.empty(self.shape, array.dtype)
        self._fill(panels, array.reshape(*self.rest, self.columns), 0)
        return panels

    def _fill(self, panels: np.ndarray, whole: np.ndarray, first: int) -> None:
        """Fills `panels` with those of `whole` from number `first` on."""
        if self.depth > 1:
            self._fill_interleaved(np.moveaxis(panels, -2, 0), whole, first * self.factor)
            return
        part = whole[..., first * self.factor : (first + len(panels)) * self.factor]
        full, left = divmod(part.shape[-1], self.factor)
        panels[:full] = np.moveaxis(part[..., : full * self.factor].reshape(*self.rest, full, self.factor), -2, 0)
        if left:
            panels[full, ..., :left] = part[..., full * self.factor :]
            panels[full, ..., left:] = 0

    def _fill_interleaved(self, columns: np.ndarray, whole: np.ndarray, first: int) -> None:
        """Fills columns[column, panel, ..., block, place] from column `first` of `whole` on."""
        for column, target in enumerate(columns):
            source = whole[..., first + column :: self.factor][..., : target.shape[0]]
            cut = (*self.rest[: self.axis], self.rest[self.axis] // self.depth, self.depth, *self.rest[self.axis + 1 :])
            found = np.moveaxis(np.moveaxis(source, -1, 0).reshape(-1, *cut), self.axis + 2, -1)
            target[: len(found)] = found
            target[len(found) :] = 0

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes in pieces of about 1 MiB, which lie in two buffers in turn: fresh memory for each would cost more
        than laying it out."""
        whole = self.inputs[0].array().reshape(*self.rest, self.columns)
        count = max(1, CHUNK // max(1, math.prod(self.shape[1:]) * self.dtype.itemsize))
        buffers = [np.empty((count, *self.shape[1:]), self.dtype.numpy) for _ in range(2)]
        for turn, first in enumerate(range(0, self.shape[0], count)):
            panels = buffers[turn % 2][: self.shape[0] - first]
            self._fill(panels, whole, first)
            yield stored(panels).view(np.uint8).reshape(-1).data


__all__ = ["PanelBlob"]
