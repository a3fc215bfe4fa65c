"""Classical models and preprocessing of ai.onnx.ml, tree ensembles aside."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiler.onnx.ops.quantized import integer_range
from compiler.onnx.ops.shape import elements
from compiler.onnx.ops.trees import best_label, single, threshold_label, transformed, two_classes
from compiler.onnx.registry import onnx_op
from ir import types as t
from ir.op import OpError

_ML = "ai.onnx.ml"


def _rows(b: Any, x: Any) -> Any:
    """x as f32[n, features]; one row where it has rank 1."""
    x = b.reshape(x, shape=(1, x.shape[0])) if x.rank == 1 else x
    if x.rank != 2:
        raise OpError(f"the input is {x.type}; it must have 1 or 2 axes")
    return single(b, x)


def _row_constant(b: Any, values: tuple[float, ...]) -> Any:
    """A constant that broadcasts against rows: one number for all features, or one for each."""
    return b.const(np.array(values[0] if len(values) == 1 else values, np.float32))


@onnx_op("Scaler", domain=_ML)
def Scaler(b: Any, X: Any, *, offset: tuple[float, ...] = (), scale: tuple[float, ...] = ()) -> Any:
    y = single(b, X)
    y = y - _row_constant(b, offset) if offset else y
    return y * _row_constant(b, scale) if scale else y


@onnx_op("Normalizer", domain=_ML)
def Normalizer(b: Any, X: Any, *, norm: str = "MAX") -> Any:
    x = single(b, X)
    reduce = {"MAX": b.reduce_max, "L1": b.reduce_l1, "L2": b.reduce_l2}.get(norm)
    if reduce is None:
        raise OpError(f"`norm` is '{norm}'; it must be MAX, L1 or L2")
    length = reduce(x, axes=(x.rank - 1,), keepdims=True)
    return x / b.where(b.equal(length, b.const(0.0, t.f32)), b.const(1.0, t.f32), length)


def _linear(b: Any, x: Any, coefficients: tuple[float, ...], intercepts: tuple[float, ...], targets: int) -> Any:
    """x[n, f] times the rows of coefficients[targets, f], plus intercepts."""
    features = x.shape[-1]
    if not isinstance(features, int) or targets < 1 or len(coefficients) < targets * features:
        raise OpError(f"there are {len(coefficients)} coefficients for {targets} targets and {features} features")
    weights = np.array(coefficients[: targets * features], np.float32).reshape(targets, features).T
    y = b.matmul(_rows(b, x), b.const(np.ascontiguousarray(weights)))
    if intercepts and len(intercepts) != targets:
        raise OpError(f"there are {len(intercepts)} intercepts for {targets} targets")
    return y + b.const(np.array(intercepts, np.float32)) if intercepts else y


@onnx_op("LinearRegressor", domain=_ML)
def LinearRegressor(
    b: Any, X: Any, *, coefficients: tuple[float, ...] = (), intercepts: tuple[float, ...] = (),
    post_transform: str = "NONE", targets: int = 1,
) -> Any:  # fmt: skip
    return transformed(b, _linear(b, X, coefficients, intercepts, targets), post_transform)


@onnx_op("LinearClassifier", domain=_ML)
def LinearClassifier(
    b: Any, X: Any, *, classlabels_ints: tuple[int, ...] = (), classlabels_strings: tuple[str, ...] = (),
    coefficients: tuple[float, ...], intercepts: tuple[float, ...] = (), multi_class: int = 0,
    post_transform: str = "NONE",
) -> Any:  # fmt: skip
    labels = classlabels_ints or classlabels_strings
    features = X.shape[-1]
    if not isinstance(features, int) or features < 1:
        raise OpError("the number of features must be known when compiling")
    scores = _linear(b, X, coefficients, intercepts, len(intercepts) or len(coefficients) // features)
    if scores.shape[1] == 1 and len(labels) == 2:
        label = threshold_label(b, scores, labels, 0.0)
        return label, two_classes(b, scores, labels, post_transform, 1.0)[1]
    if scores.shape[1] != len(labels):
        raise OpError(f"there are {len(labels)} labels for {scores.shape[1]} scores")
    return best_label(b, scores, labels), transformed(b, scores, post_transform)


@onnx_op("ZipMap", domain=_ML)
def ZipMap(
    b: Any, X: Any, *, classlabels_int64s: tuple[int, ...] = (), classlabels_strings: tuple[str, ...] = ()
) -> Any:
    labels = classlabels_int64s or classlabels_strings
    x = b.reshape(X, shape=(1, X.shape[0])) if X.rank == 1 else X
    if len(set(labels)) != len(labels):
        raise OpError("a label is given twice")
    if isinstance(x.shape[-1], int) and x.shape[-1] != len(labels):
        raise OpError(f"there are {len(labels)} labels for {x.type}")
    return b.zip_map(x, keys=tuple(labels))


@onnx_op("CastMap", domain=_ML)
def CastMap(b: Any, X: Any, *, cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1) -> Any:
    to = {"TO_FLOAT": t.f32, "TO_STRING": t.string, "TO_INT64": t.i64}.get(cast_to)
    if to is None or map_form not in ("DENSE", "SPARSE") or max_map < 1:
        raise OpError(f"`cast_to` is '{cast_to}', `map_form` '{map_form}' and `max_map` {max_map}")
    if map_form == "SPARSE":
        return b.map_to_tensor(X, to=to, size=max_map, places=max_map)
    return b.map_to_tensor(X, to=to, size=b.run_time_size(1, is_bounded=False))


@onnx_op("DictVectorizer", domain=_ML)
def DictVectorizer(
    b: Any, X: Any, *, int64_vocabulary: tuple[int, ...] = (), string_vocabulary: tuple[str, ...] = ()
) -> Any:
    if bool(int64_vocabulary) == bool(string_vocabulary):
        raise OpError("it must have one of `int64_vocabulary` and `string_vocabulary`")
    value = getattr(getattr(X.type, "value", None), "dtype", t.f32)
    return b.map_lookup(X, vocabulary=tuple(int64_vocabulary or string_vocabulary), dtype=value)


@onnx_op("Binarizer", domain=_ML)
def Binarizer(b: Any, X: Any, *, threshold: float = 0.0) -> Any:
    if X.dtype.is_integer:
        low, high = integer_range(X.dtype)
        limit = math.floor(threshold)  # an integer is above the threshold where it is above the integer below that
        if limit < low:
            return b.full(shape=X.shape, value=1, dtype=X.dtype)
        return b.cast(b.greater(X, b.const(min(limit, high), X.dtype)), to=X.dtype)
    return b.cast(b.greater(X, b.const(threshold, X.dtype)), to=X.dtype)


@onnx_op("ArrayFeatureExtractor", domain=_ML)
def ArrayFeatureExtractor(b: Any, X: Any, Y: Any) -> Any:
    indices = b.reshape(Y, shape=(Y.tensor.elements,))
    y = b.gather(X, indices, axis=X.rank - 1)
    return b.reshape(y, shape=(1, *y.shape)) if X.rank == 1 else y


@onnx_op("FeatureVectorizer", domain=_ML)
def FeatureVectorizer(b: Any, *xs: Any, inputdimensions: tuple[int, ...] = ()) -> Any:
    """Rows side by side, each input's cut or filled up with zeros to its `inputdimensions`."""
    if len(inputdimensions) not in (0, len(xs)):
        raise OpError(f"`inputdimensions` has {len(inputdimensions)} numbers for {len(xs)} inputs")
    parts = []
    for position, x in enumerate(xs):
        rows = x if x.rank == 2 else b.reshape(x, shape=(1, *x.shape) if x.rank == 1 else _flat(x.shape))
        rows = single(b, rows)
        if inputdimensions and rows.shape[1] != inputdimensions[position]:
            rows = b.pad(rows, before=(0, 0), after=(0, inputdimensions[position] - rows.shape[1]))
        parts.append(rows)
    return b.concat(*parts, axis=1)


def _flat(shape: tuple[Any, ...]) -> tuple[Any, Any]:
    if not shape:
        raise OpError("an input is a scalar; it must have rows")
    return shape[0], elements(shape[1:])


@onnx_op("Imputer", domain=_ML)
def Imputer(
    b: Any, X: Any, *, imputed_value_floats: tuple[float, ...] = (), imputed_value_int64s: tuple[int, ...] = (),
    replaced_value_float: float = 0.0, replaced_value_int64: int = 0,
) -> Any:  # fmt: skip
    values = imputed_value_int64s if X.dtype.is_integer else imputed_value_floats
    replaced = replaced_value_int64 if X.dtype.is_integer else replaced_value_float
    if not values:
        raise OpError(f"there are no imputed values for {X.type}")
    fill = b.const(np.array(values[0] if len(values) == 1 else values), X.dtype)
    wrong = b.is_nan(X) if replaced != replaced else b.equal(X, b.const(replaced, X.dtype))
    return b.where(wrong, fill, X)


def _table(b: Any, x: Any, keys: Any, values: Any, default: Any) -> Any:
    """`lookup` of x among keys; all three are arrays."""
    return b.lookup(x, b.const(keys), b.const(values), b.const(default))


def text_array(array: np.ndarray) -> np.ndarray:
    """The array with strings that came as bytes decoded."""
    if array.dtype != object:
        return array
    out = np.empty(array.shape, object)
    for at, item in np.ndenumerate(array):
        out[at] = item.decode("utf-8") if isinstance(item, bytes) else item
    return out


def _typed(
    strings: tuple[str, ...], ints: tuple[int, ...], floats: tuple[float, ...], tensor: Any
) -> np.ndarray | None:
    if tensor is not None:
        return text_array(tensor.array().reshape(-1))
    if strings:
        return np.array(strings, object)
    if ints:
        return np.array(ints, np.int64)
    return np.array(floats, np.float32) if floats else None


@onnx_op("LabelEncoder", since=2, domain=_ML)
def LabelEncoder(
    b: Any, X: Any, *, default_float: float = -0.0, default_int64: int = -1, default_string: str = "_Unused",
    default_tensor: Any = None, keys_floats: tuple[float, ...] = (), keys_int64s: tuple[int, ...] = (),
    keys_strings: tuple[str, ...] = (), keys_tensor: Any = None, values_floats: tuple[float, ...] = (),
    values_int64s: tuple[int, ...] = (), values_strings: tuple[str, ...] = (), values_tensor: Any = None,
) -> Any:  # fmt: skip
    keys = _typed(keys_strings, keys_int64s, keys_floats, keys_tensor)
    values = _typed(values_strings, values_int64s, values_floats, values_tensor)
    if keys is None or values is None or len(keys) != len(values):
        raise OpError("keys and values must be given, as many of one as of the other")
    if default_tensor is not None:
        default = text_array(default_tensor.array().reshape(()))
    elif values.dtype == object:
        default = np.array(default_string, object)
    else:
        default = np.array(default_float if values.dtype.kind == "f" else default_int64).astype(values.dtype)
    return _table(b, X, keys, values, default)


@onnx_op("LabelEncoder", since=1, domain=_ML)
def LabelEncoder1(
    b: Any, X: Any, *, classes_strings: tuple[str, ...] = (), default_int64: int = -1, default_string: str = "_Unused"
) -> Any:
    names, numbers = np.array(classes_strings, object), np.arange(len(classes_strings))
    if X.dtype == t.string:
        return _table(b, X, names, numbers, np.array(default_int64))
    return _table(b, X, numbers, names, np.array(default_string, object))


@onnx_op("CategoryMapper", domain=_ML)
def CategoryMapper(
    b: Any, X: Any, *, cats_int64s: tuple[int, ...] = (), cats_strings: tuple[str, ...] = (), default_int64: int = -1,
    default_string: str = "_Unused",
) -> Any:  # fmt: skip
    names, numbers = np.array(cats_strings, object), np.array(cats_int64s, np.int64)
    if X.dtype == t.string:
        return _table(b, X, names, numbers, np.array(default_int64))
    return _table(b, X, numbers, names, np.array(default_string, object))


@onnx_op("OneHotEncoder", domain=_ML)
def OneHotEncoder(
    b: Any, X: Any, *, cats_int64s: tuple[int, ...] = (), cats_strings: tuple[str, ...] = (), zeros: int = 1
) -> Any:
    if not zeros:
        raise OpError("`zeros` of 0 (an error for unknown categories) is not supported")
    if X.dtype == t.string:
        x, cats = X, np.array(cats_strings, object)
    else:
        x, cats = X if X.dtype == t.i64 else b.cast(X, to=t.i64), np.array(cats_int64s, np.int64)
    same = b.equal(b.reshape(x, shape=(*x.shape, 1)), b.const(cats))
    return b.cast(same, to=t.f32)
