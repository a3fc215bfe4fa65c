"""General operators of com.microsoft: early forms of ones that ai.onnx has now, and some that it never had."""

from __future__ import annotations

from typing import Any

from compiler.onnx.ops import constant, indexing, movement, shape
from compiler.onnx.ops.shape import normal_axis
from compiler.onnx.ops.signal import transformed
from compiler.onnx.registry import onnx_op
from compiler.onnx.told import numbers
from ir import types as t
from ir.dims import Size, maximum
from ir.op import OpError
from ir.ops.norm import convert, widen

_MS = "com.microsoft"


@onnx_op("Inverse", domain=_MS)
def Inverse(b: Any, X: Any) -> Any:
    return convert(b, b.inverse(widen(b, X))[0], X)


@onnx_op("Pad", domain=_MS)
def Pad(b: Any, data: Any, pads: Any, value: Any = None, *, mode: str = "constant") -> Any:
    return movement.Pad(b, data, pads, value, mode=mode)


@onnx_op("Range", domain=_MS)
def Range(b: Any, start: Any, limit: Any, delta: Any = None) -> Any:
    return constant.Range(b, start, limit, b.const(1, start.dtype) if delta is None else delta)


@onnx_op("Trilu", domain=_MS)
def Trilu(b: Any, X: Any, k: Any = None, *, upper: int = 1) -> Any:
    return movement.Trilu(b, X, k, upper=upper)


@onnx_op("GatherND", domain=_MS)
def GatherND(b: Any, data: Any, indices: Any) -> Any:
    return indexing.GatherND(b, data, indices)


@onnx_op("ExpandDims", domain=_MS)
def ExpandDims(b: Any, X: Any, axis: Any) -> Any:
    return shape.Unsqueeze(b, X, numbers(b, axis))


@onnx_op("SampleOp", domain=_MS)
def SampleOp(b: Any, X: Any) -> Any:
    return X


@onnx_op("UnfoldTensor", domain=_MS)
def UnfoldTensor(b: Any, input: Any, *, dim: int = -1, size: int, step: int = 1) -> Any:
    """Windows of `size` entries of axis `dim`, their entries on a new last axis."""
    along = normal_axis(dim, input.rank)
    if size < 1 or step < 1:
        raise OpError(f"`size` is {size} and `step` {step}; both must be at least 1")
    count: Size = (input.shape[along] - size) // step + 1
    if isinstance(count, int) and count < 1:
        raise OpError(f"axis {along} of {input.type} holds no window of {size}")
    places = b.iota(shape=(count, 1), axis=0) * step + b.iota(shape=(1, size), axis=1)
    windows = b.gather(input, places, axis=along)
    perm = tuple(axis for axis in range(windows.rank) if axis != along + 1)
    return b.transpose(windows, perm=(*perm, along + 1))


@onnx_op("TorchEmbedding", domain=_MS)
def TorchEmbedding(
    b: Any, weight: Any, indices: Any, padding_idx: Any = None, scale_grad_by_freq: Any = None
) -> Any:  # the last two matter in training only
    return b.gather(weight, indices, axis=0)


@onnx_op("IsAllFinite", domain=_MS)
def IsAllFinite(b: Any, *inputs: Any, isinf_only: int = 0, isnan_only: int = 0) -> Any:
    if isinf_only and isnan_only:
        raise OpError("`isinf_only` and `isnan_only` exclude each other")
    found: Any = b.const(0, t.i64)
    for x in inputs:
        tests = [test(x) for test, is_off in ((b.is_inf, isnan_only), (b.is_nan, isinf_only)) if not is_off]
        is_bad = tests[0] if len(tests) == 1 else b.or_(*tests)
        found = found + b.reduce_sum(b.cast(is_bad, to=t.i64), axes=tuple(range(x.rank)), keepdims=False)
    return b.equal(found, b.const(0, t.i64))


@onnx_op("CDist", domain=_MS)
def CDist(b: Any, A: Any, B: Any, *, metric: str = "sqeuclidean") -> Any:
    if metric not in ("sqeuclidean", "euclidean"):
        raise OpError(f"`metric` is {metric!r}; sqeuclidean and euclidean are supported")
    if A.rank != 2 or B.rank != 2:
        raise OpError(f"operands are {A.type} and {B.type}; both must have 2 axes")
    rows, others = (b.reshape(A, shape=(A.shape[0], 1, A.shape[1])), b.reshape(B, shape=(1, *B.shape)))
    difference = rows - others
    total = b.reduce_sum(difference * difference, axes=(2,), keepdims=False)
    return total if metric == "sqeuclidean" else b.sqrt(total)


def _parts(b: Any, x: Any) -> tuple[Any, Any]:
    """The real and the imaginary part of a tensor whose last axis holds both."""
    if x.rank < 1 or x.shape[-1] != 2:
        raise OpError(f"the last axis of {x.type} must hold the two parts of complex numbers")
    shape, steps = (*x.shape[:-1], 1), (1,) * x.rank
    real, imaginary = (b.slice(x, starts=(*[0] * (x.rank - 1), at), shape=shape, steps=steps) for at in (0, 1))
    return real, imaginary


@onnx_op("ComplexMul", domain=_MS)
def ComplexMul(b: Any, A: Any, B: Any) -> Any:
    (a, c), (e, f) = _parts(b, A), _parts(b, B)
    return b.concat(a * e - c * f, a * f + c * e, axis=max(A.rank, B.rank) - 1)


@onnx_op("ComplexMulConj", domain=_MS)
def ComplexMulConj(b: Any, A: Any, B: Any) -> Any:
    """A times the conjugate of B."""
    (a, c), (e, f) = _parts(b, A), _parts(b, B)
    return b.concat(a * e + c * f, c * e - a * f, axis=max(A.rank, B.rank) - 1)


def _check_transform(signal_ndim: int, normalized: int, onesided: int, rank: int) -> None:
    if normalized or not onesided:
        raise OpError(f"`normalized` is {normalized} and `onesided` {onesided}; they must be 0 and 1")
    if not 1 <= signal_ndim <= rank:
        raise OpError(f"`signal_ndim` is {signal_ndim}, for {rank} axes")


@onnx_op("Rfft", domain=_MS)
def Rfft(b: Any, X: Any, *, normalized: int = 0, onesided: int = 1, signal_ndim: int = 1) -> Any:
    """The transform of the last `signal_ndim` axes; the last of them keeps the half that holds everything."""
    _check_transform(signal_ndim, normalized, onesided, X.rank)
    y = b.reshape(X, shape=(*X.shape, 1))
    for axis in reversed(range(X.rank - signal_ndim, X.rank)):
        y = transformed(b, y, X.shape[axis], axis, onesided=axis == X.rank - 1)
    return y


@onnx_op("Irfft", domain=_MS)
def Irfft(b: Any, X: Any, *, normalized: int = 0, onesided: int = 1, signal_ndim: int) -> Any:
    """The inverse of Rfft for an even number of samples, divided by their number."""
    rank = X.rank - 1
    _check_transform(signal_ndim, normalized, onesided, rank)
    y = X
    for axis in range(rank - signal_ndim, rank):
        last = axis == rank - 1
        length = 2 * (X.shape[axis] - 1) if last else X.shape[axis]
        y = transformed(b, y, length, axis, inverse=True, onesided=last)
    return b.reshape(y, shape=y.shape[:-1])


@onnx_op("MurmurHash3", domain=_MS)
def MurmurHash3(b: Any, X: Any, *, positive: int = 1, seed: int = 0) -> Any:
    """MurmurHash3_x86_32 of the bytes of each element, the lowest first."""
    if X.dtype.bits not in (32, 64) or X.dtype.kind == "string":
        raise OpError(f"the input is {X.type}; numbers of 32 and 64 bits are supported")
    if not 0 <= seed < 1 << 32:
        raise OpError(f"`seed` is {seed}; it must be an unsigned number of 32 bits")
    hashed: Any = b.const(seed, t.u32)
    for word in _words(b, X):
        mixed = b.mul(_rotated(b, b.mul(word, b.const(0xCC9E2D51, t.u32)), 15), b.const(0x1B873593, t.u32))
        turned = _rotated(b, b.xor(hashed, mixed), 13)
        hashed = b.mul(turned, b.const(5, t.u32)) + b.const(0xE6546B64, t.u32)
    hashed = b.xor(hashed, b.const(X.dtype.bits // 8, t.u32))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        hashed = b.xor(hashed, b.shift_right(hashed, b.const(shift, t.u32)))
        hashed = hashed if factor is None else b.mul(hashed, b.const(factor, t.u32))
    return hashed if positive else b.cast(hashed, to=t.i32)


def _words(b: Any, x: Any) -> list[Any]:
    """The elements as u32, or as two of them, the lower first."""
    unsigned = t.u32 if x.dtype.bits == 32 else t.u64
    if x.dtype != unsigned:
        x = b.bit_cast(x, to=unsigned) if x.dtype.is_float else b.cast(x, to=unsigned)
    if unsigned == t.u32:
        return [x]
    return [b.cast(x, to=t.u32), b.cast(b.shift_right(x, b.const(32, t.u64)), to=t.u32)]


def _rotated(b: Any, x: Any, count: int) -> Any:
    """The bits of a u32 moved up in a circle."""
    up = b.shift_left(x, b.const(count, t.u32))
    return b.or_(up, b.shift_right(x, b.const(32 - count, t.u32)))


@onnx_op("Unique", domain=_MS)
def Unique(b: Any, x: Any) -> Any:
    """The values in the order in which they come, where each of x stands among them, and how often it comes."""
    if x.rank != 1:
        raise OpError(f"the input is {x.type}; it must have 1 axis")
    values, _, places, counts = indexing.Unique(b, x, sorted=0)
    return values, places, counts


@onnx_op("WordConvEmbedding", domain=_MS)
def WordConvEmbedding(
    b: Any, Sequence: Any, W: Any, B: Any, C: Any, *, char_embedding_size: int = 0, conv_window_size: int = 0,
    embedding_size: int = 0,
) -> Any:  # fmt: skip
    """For each word, the greatest answer of each filter to a run of its characters.

    A word has as many characters as it has numbers above 0, but at least as many as a filter is long; one that starts
    with 0 has none, and gives zeros.
    """
    if Sequence.rank != 2 or W.rank != 4 or C.rank != 2:
        raise OpError(f"words {Sequence.type}, filters {W.type} and characters {C.type} must have 2, 4 and 2 axes")
    filters, _, width, size = W.shape
    for what, given, size_ in (
        ("char_embedding_size", char_embedding_size, size), ("conv_window_size", conv_window_size, width),
        ("embedding_size", embedding_size, filters),
    ):  # fmt: skip
        if given and given != size_:
            raise OpError(f"`{what}` is {given}, but the filters are {W.type}")
    words, length = Sequence.shape
    is_character = b.greater(Sequence, b.const(0, Sequence.dtype))
    counts = b.reduce_sum(b.cast(is_character, to=t.i64), axes=(1,), keepdims=True)
    runs = b.max(counts - b.dims(width), b.const(0, t.i64))
    image = b.reshape(b.gather(C, Sequence, axis=0), shape=(words, 1, length, size))
    y = b.tanh(b.conv(image, W, B, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1)))
    y = b.reshape(y, shape=y.shape[:3])
    is_run = b.less_or_equal(b.iota(shape=(1, 1, y.shape[2]), axis=2), b.reshape(runs, shape=(words, 1, 1)))
    best = b.reduce_max(b.where(is_run, y, b.const(-1.0, y.dtype)), axes=(2,), keepdims=False)
    first = b.slice(is_character, starts=(0, 0), shape=(words, 1), steps=(1, 1))
    return b.where(first, best, b.const(0.0, y.dtype))


@onnx_op("NGramRepeatBlock", domain=_MS)
def NGramRepeatBlock(b: Any, input_ids: Any, scores: Any, *, ngram_size: int) -> Any:
    """Scores of -inf for tokens that would end a run of `ngram_size` tokens which has come before."""
    if ngram_size < 1 or input_ids.rank != 2 or scores.rank != 2:
        raise OpError(f"`ngram_size` is {ngram_size}, for {input_ids.type} and {scores.type}")
    batch, length = input_ids.shape
    before = ngram_size - 1
    if isinstance(length, int) and length < ngram_size:
        return scores
    runs = maximum(0, length - before)

    def tokens(start: Size, count: Size) -> Any:
        return b.slice(input_ids, starts=(0, start), shape=(batch, count), steps=(1, 1))

    same: Any = None
    for position in range(before):
        equal = b.equal(tokens(position, runs), tokens(maximum(0, length - before) + position, 1))
        same = equal if same is None else b.and_(same, equal)
    low, high = b.const(float("-inf"), scores.dtype), b.const(float("inf"), scores.dtype)
    bound = b.expand(low, shape=(batch, runs)) if same is None else b.where(same, low, high)
    return b.scatter_elements(scores, tokens(before, runs), bound, axis=1, reduction="min")
