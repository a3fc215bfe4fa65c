"""Regions of interest that no image has, on the interpreter: they end, and are of value 0."""

from __future__ import annotations

import numpy as np
import pytest

from ir.ops.region import RoiAlign


@pytest.mark.parametrize("box", [[0, 0, 1e30, 1e30], [-1e30, 0, 1e30, 3], [0, 0, np.inf, 2], [np.nan, 0, 3, 3]])
def test_a_region_far_beyond_the_image_has_a_bounded_number_of_samples(box: list[float]) -> None:
    x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    y = RoiAlign(height=2, width=2).reference(x, np.array([box], np.float32), np.array([0]))
    assert y.shape == (1, 2, 2, 2) and np.all(y == 0)
