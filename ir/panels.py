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
    then `rest`, then the columns of the panel. Made when it is emitted."""

    def __init__(self, source: Blob, rest: tuple[int, ...], factor: int) -> None:
        self.rest = rest
        self.factor = factor
        self.columns = source.elements // max(1, math.prod(rest))
        shape = (-(-self.columns // factor), *rest, factor)
        super().__init__("panels", self._lay_out, (source,), source.dtype, shape, params=(rest, factor))

    def _lay_out(self, array: np.ndarray) -> np.ndarray:
        panels = np.empty(self.shape, array.dtype)
        self._fill(panels, array.reshape(*self.rest, self.columns), 0)
        return panels

    def _fill(self, panels: np.ndarray, whole: np.ndarray, first: int) -> None:
        """Fills `panels` with those of `whole` from number `first` on."""
        part = whole[..., first * self.factor : (first + len(panels)) * self.factor]
        full, left = divmod(part.shape[-1], self.factor)
        panels[:full] = np.moveaxis(part[..., : full * self.factor].reshape(*self.rest, full, self.factor), -2, 0)
        if left:
            panels[full, ..., :left] = part[..., full * self.factor :]
            panels[full, ..., left:] = 0

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
