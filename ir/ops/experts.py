"""Products of tokens with the weights of the experts that each of them is sent to."""

from __future__ import annotations

import numpy as np

from ir import types as t
from ir.dims import decide_eq
from ir.element import Tensor, apply, cast, sum_over
from ir.expr import Expr
from ir.op import Op, OpError, assume_equal, case, op, require
from ir.types import TensorType


@op
class ExpertMatmul(Op):
    """y[t, k, n], the sum over h of x[t, k or 0, h] * w[index[t, k], n, h].

    With scales[e, n, g], w holds unsigned numbers of `bits` bits in bytes, the lowest bits first, and stands for
    (w - zeros) * scales, where a block of h has one of g scales and one of zeros[e, n, g], or 2^(bits - 1).
    """

    bits: int = 0
    index_names = "t k n"
    examples = [
        case("f32[3,1,5]", "f32[4,2,5]", np.array([[3, 0], [1, 1], [0, 2]])),
        case("f32[2,2,4]", "f16[2,3,4]", np.array([[1, 0], [0, 1]], np.int32)),
        case("f32[2,1,8]", "u8[3,2,4]", np.array([[2], [0]]), "f32[3,2,2]", bits=4),
        case("f64[2,1,8]", "u8[3,2,2]", np.array([[2], [1]]), "f32[3,2,1]", "u8[3,2,1]", bits=2),
        case("f32[1,2,6]", "u8[2,3,6]", np.array([[1, 0]]), "f16[2,3,3]", "u8[2,3,3]", bits=8),
        case("f32[0,1,4]", "f32[2,3,4]", np.zeros((0, 2), np.int64)),
    ]

    def infer(self, x: TensorType, w: TensorType, index: TensorType, scales: TensorType | None = None,
              zeros: TensorType | None = None) -> TensorType:  # fmt: skip
        require(x.dtype in (t.f32, t.f64) and x.rank == 3, lambda: f"expert_matmul does not take {x}")
        require(w.rank == 3 and index.rank == 2 and index.dtype in (t.i32, t.i64),
                lambda: f"expert_matmul does not take weights {w} and experts {index}")  # fmt: skip
        require(decide_eq(x.shape[1], 1) is True or decide_eq(x.shape[1], index.shape[1]) is not False,
                lambda: f"expert_matmul: {x} for experts {index}")  # fmt: skip
        assume_equal(x.shape[0], index.shape[0])
        size = x.shape[2]
        if scales is None:
            require(w.dtype.is_float and self.bits == 0 and zeros is None, lambda: f"expert_matmul: weights {w}")
            require(decide_eq(w.shape[2], size) is not False, lambda: f"expert_matmul: {x} and weights {w}")
            assume_equal(w.shape[2], size)
        else:
            self.check_numbers(w, size, scales, zeros)
        return x.with_shape((x.shape[0], index.shape[1], w.shape[1]))

    def check_numbers(self, w: TensorType, size: object, scales: TensorType, zeros: TensorType | None) -> None:
        """Raises OpError unless w holds `size` numbers of `bits` bits, and blocks of them have scales and zeros."""
        require(w.dtype == t.u8 and self.bits in (2, 4, 8), lambda: f"expert_matmul: weights {w} of {self.bits} bits")
        if not isinstance(size, int) or w.shape[2] != size * self.bits // 8:
            raise OpError(f"expert_matmul: weights {w} of {self.bits} bits do not hold {size} numbers")
        for what in (scales, zeros):
            if what is None:
                continue
            count = what.shape[-1]
            if what.rank != 3 or what.shape[:2] != w.shape[:2] or not isinstance(count, int) or size % max(count, 1):
                raise OpError(f"expert_matmul: {what} are not for blocks of {size} numbers of {w}")
        require(zeros is None or (zeros.dtype == t.u8 and zeros.shape == scales.shape),
                lambda: f"expert_matmul: zero points {zeros} for scales {scales}")  # fmt: skip

    def reference(
        self, x: np.ndarray, w: np.ndarray, index: np.ndarray, scales: np.ndarray | None = None,
        zeros: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        if scales is not None:
            shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
            parts = (w[..., None] >> shifts) & np.uint8((1 << self.bits) - 1)
            levels = parts.reshape(*w.shape[:2], x.shape[2]).astype(x.dtype)
            middle = np.full(scales.shape, 1 << (self.bits - 1)) if zeros is None else zeros
            repeats = x.shape[2] // scales.shape[2]
            middle, scales = (np.repeat(v.astype(x.dtype), repeats, axis=2) for v in (middle, scales))
            w = (levels - middle) * scales
        chosen = w.astype(x.dtype)[index]
        return np.einsum("tkh,tknh->tkn", np.broadcast_to(x, (*index.shape, x.shape[2])), chosen).astype(x.dtype)

    def element(
        self, i: tuple[Expr, ...], x: Tensor, w: Tensor, index: Tensor, scales: Tensor | None = None,
        zeros: Tensor | None = None,
    ) -> Expr:  # fmt: skip
        token, choice, n = i
        expert = cast(index.at(token, choice), t.i64)

        def weight(h: Expr) -> Expr:
            if scales is None:
                return cast(w.at(expert, n, h), x.dtype)
            per_byte, size, count = 8 // self.bits, x.shape[2], scales.shape[2]
            assert isinstance(size, int) and isinstance(count, int)  # see `check_numbers`
            level = w.at(expert, n, h // per_byte)
            if per_byte > 1:
                shift = cast(h % per_byte * self.bits, t.u8)
                level = apply("and", apply("shr", level, shift), (1 << self.bits) - 1)
            group = h // (size // count)
            number = cast(level, x.dtype)
            middle = 1 << (self.bits - 1) if zeros is None else cast(zeros.at(expert, n, group), x.dtype)
            return (number - middle) * cast(scales.at(expert, n, group), x.dtype)

        row = 0 if x.shape[1] == 1 else choice
        return sum_over(x.shape[2:], lambda h: x.at(token, row, h) * weight(h))


__all__ = ["ExpertMatmul"]
