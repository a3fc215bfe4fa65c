"""What random graphs are grown from: each recipe picks operands of a `Maker`, applies one op or a pattern of a few that
models use, and puts the result back with a bound on its magnitude. A recipe whose operands do not fit raises OpError,
and the graph goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ir import types as t
from ir.build import Builder
from ir.dims import maximum, minimum, symbol
from ir.graph import Graph, Value
from ir.op import OPS, OpError
from tests.fuzz.graphs import STATIC, SYMBOLS, Maker

RECIPES: dict[str, tuple[Callable[[Maker], Any], float]] = {}
"""Name -> (recipe, how often it is chosen in proportion to the others)."""

TILES = (1, 3, 15, 16, 17, 31, 33, 64, 65, 100)
"""Extents of matrix products: around whole vectors and whole tiles of them."""
CHANNELS = (1, 2, 3, 4, 6, 8, 12, 15, 16, 17, 24, 32, 33, 48)


def recipe(weight: float) -> Callable[[Callable[[Maker], Any]], Callable[[Maker], Any]]:
    def register(function: Callable[[Maker], Any]) -> Callable[[Maker], Any]:
        RECIPES[function.__name__] = (function, weight)
        return function

    return register


# ---------------------------------------------------------------- elementwise

_SMOOTH: dict[str, Callable[[float], float]] = {
    "relu": lambda m: m, "neg": lambda m: m, "abs": lambda m: m, "tanh": lambda m: 1, "sigmoid": lambda m: 1,
    "erf": lambda m: 1, "gelu": lambda m: m, "sin": lambda m: 1, "cos": lambda m: 1, "softplus": lambda m: m + 1,
    "hard_swish": lambda m: m, "leaky_relu": lambda m: m, "elu": lambda m: m, "swish": lambda m: m, "mish": lambda m: m,
    "hard_sigmoid": lambda m: 1, "softsign": lambda m: 1, "celu": lambda m: m, "selu": lambda m: 2 * m,
}  # fmt: skip
_KEEPS_EXACT = {"relu", "neg", "abs"}


@recipe(5)
def unary(m: Maker) -> None:
    x = m.pick()
    name = m.rng.choice(sorted(_SMOOTH))
    m.put(getattr(m.b, name)(x), _SMOOTH[name](m.magnitude[x]), exact=name in _KEEPS_EXACT and x in m.exact)


@recipe(2)
def unary_within_domain(m: Maker) -> None:
    x = m.pick(most=3.0)
    how = m.rng.choice(["exp", "sqrt", "log", "reciprocal", "pow", "clip"])
    if how == "exp":
        m.put(m.b.exp(x), 21.0)
    elif how == "clip":
        low, high = m.b.const(-1.0, m.float), m.b.const(0.75, m.float)
        m.put(m.b.clip(x, low if m.rng.random() < 0.7 else None, high), max(m.magnitude[x], 1.0), exact=x in m.exact)
    elif how == "pow":
        m.put(m.b.pow(m.b.abs(x) + 0.5, m.rng.choice([2.0, 0.5, 3.0, -1.0, 1.7])), 50.0)
    else:
        m.put(getattr(m.b, how)(m.b.abs(x) + 0.5), 4.0)


@recipe(1)
def threshold(m: Maker) -> None:
    """Ops that jump: on exact values only."""
    x = m.pick_exact()
    m.put(getattr(m.b, m.rng.choice(["floor", "ceil", "round", "sign"]))(x), m.magnitude[x] + 1, exact=True)


@recipe(6)
def binary(m: Maker) -> None:
    x = m.pick()
    y = m.broadcasting(x)
    if m.rng.random() < 0.4:
        x, y = y, x
    a, b = m.magnitude[x], m.magnitude[y]
    exact = x in m.exact and y in m.exact
    how = m.rng.choice(["add", "add", "sub", "mul", "mul", "max", "min", "div"])
    if how == "mul":
        m.put(m.b.mul(x, y), a * b)
    elif how == "div":
        m.put(m.b.div(x, m.b.abs(y) + 0.5), 2 * a)
    else:
        m.put(getattr(m.b, how)(x, y), a + b, exact=exact and how in ("max", "min"))


@recipe(2)
def scale_and_shift(m: Maker) -> None:
    """Arithmetic with literals, as rules of algebra like it."""
    x = m.pick(most=16.0)
    y = x
    for _ in range(m.rng.randint(1, 3)):
        literal = m.rng.choice([0.0, 1.0, -1.0, 0.5, 2.0, 3.0])
        how = m.rng.choice(["add", "sub", "mul", "div", "rsub"])
        if how == "rsub":
            y = literal - y
        elif how == "div":
            y = y / (literal or 2.0)
        else:
            y = getattr(m.b, how)(y, literal)
    m.put(y, 1000.0)


@recipe(2)
def choose(m: Maker) -> None:
    a = m.pick_exact()
    b = m.broadcasting(a)
    if b not in m.exact:
        b = m.constant((1,))
    condition = getattr(m.b, m.rng.choice(["less", "greater_or_equal", "equal", "greater"]))(a, b)
    if m.rng.random() < 0.3:
        condition = m.b.not_(condition)
    if m.rng.random() < 0.3:
        other = m.b.less(a, 0.25)
        condition = getattr(m.b, m.rng.choice(["and_", "or_", "xor"]))(condition, other)
    m.put(condition, 1.0, exact=True)
    if m.rng.random() < 0.7:
        x = m.pick(lambda v: v.shape == condition.shape)
        y = m.broadcasting(x)
        m.put(m.b.where(condition, x, y), max(m.magnitude[x], m.magnitude[y]), exact=x in m.exact and y in m.exact)
    else:
        m.put(m.b.cast(condition, to=m.float), 1.0, exact=True)


@recipe(1.5)
def integers(m: Maker) -> None:
    found = [v for v in m.pool if v.dtype == t.i64 and m.magnitude[v] < 1000]
    x = m.rng.choice(found) if found and m.rng.random() < 0.6 else m.input(m.shape(1, 3), t.i64)
    how = m.rng.choice(["add", "mul", "div", "mod", "max", "neg", "abs", "sum"])
    if how in ("neg", "abs"):
        y, bound = getattr(m.b, how)(x), m.magnitude[x]
    elif how == "sum":
        axis = m.rng.randrange(x.rank) if x.rank else 0
        y, bound = m.b.reduce_sum(x, axes=(axis,) if x.rank else (), keepdims=m.rng.random() < 0.5), m.magnitude[x] * 40
    elif how in ("div", "mod"):
        y, bound = getattr(m.b, how)(x, m.rng.choice([2, 3, -2, 7])), m.magnitude[x] + 8
    else:
        other = m.rng.choice([v for v in [x, *found] if v.shape == x.shape])
        bound = m.magnitude[x] + m.magnitude[other] + m.magnitude[x] * m.magnitude[other]
        y = getattr(m.b, how)(x, other)
    m.put(y, bound, exact=True)
    if m.rng.random() < 0.5:
        m.put(m.b.cast(y, to=m.float), bound, exact=bound < 1e6)


@recipe(0.7)
def half(m: Maker) -> None:
    """Some work in f16 and back."""
    x = m.b.cast(m.pick(most=4.0), to=m.half)
    for _ in range(m.rng.randint(1, 3)):
        x = m.rng.choice([lambda v: m.b.mul(v, 0.5), lambda v: m.b.add(v, v), m.b.tanh, m.b.relu])(x)
    m.put(m.b.cast(x, to=m.float), 64.0)


@recipe(0.7)
def size_as_number(m: Maker) -> None:
    x = m.pick(lambda v: v.rank > 0)
    size = m.b.cast(m.b.dims(m.rng.choice(x.shape)), to=m.float)
    m.put(m.b.mul(x, size) if m.rng.random() < 0.5 else m.b.div(x, size + 1.0), m.magnitude[x] * 40)


# ---------------------------------------------------------------- movement


def moved(m: Maker, y: Value, x: Value) -> Value:
    return m.put(y, m.magnitude[x], exact=x in m.exact)


def _any(m: Maker, least: int = 1) -> Value:
    """A value of any type, of at least that many axes."""
    found = [v for v in m.pool if v.rank >= least]
    return m.rng.choice(found[-4:]) if found else m.pick(lambda v: v.rank >= least)


@recipe(4)
def reshape(m: Maker) -> None:
    x = _any(m)
    shape = list(x.shape)
    for _ in range(m.rng.randint(1, 3)):
        how, at = m.rng.choice(["merge", "split", "one", "drop"]), m.rng.randrange(max(1, len(shape)))
        if how == "merge" and at + 1 < len(shape):
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif how == "split" and at < len(shape) and len(shape) < 5:
            factors = [f for f in (2, 3, 4, 8) if shape[at] % f == 0]
            if factors:
                factor = m.rng.choice(factors)
                pair = [factor, shape[at] // factor]
                shape[at : at + 1] = pair if m.rng.random() < 0.5 else pair[::-1]
        elif how == "one" and len(shape) < 5:
            shape.insert(at, 1)
        elif how == "drop" and 1 in shape and len(shape) > 1:
            shape.remove(1)
    moved(m, m.b.reshape(x, shape=tuple(shape)), x)


@recipe(4)
def transpose(m: Maker) -> None:
    x = _any(m, 2)
    perm = list(range(x.rank))
    m.rng.shuffle(perm)
    moved(m, m.b.transpose(x, perm=tuple(perm)), x)


@recipe(3)
def slice_(m: Maker) -> None:
    x = _any(m)
    starts, shape, steps = [], [], []
    for size in x.shape:
        how = m.rng.choice(["all", "all", "even", "back", "rest", "few", "first"])
        start, count, step = 0, size, 1
        if how == "even":
            count, step = (size + 1) // 2, 2
        elif how == "back":
            start, step = size - 1, -1
        elif how == "rest":
            start, count = minimum(1, size), maximum(size - 1, 0)
        elif how == "few" and isinstance(size, int) and size > 2:
            start = m.rng.randrange(size - 1)
            count = m.rng.randint(1, size - start)
        elif how == "first":
            count = minimum(size, m.rng.choice([1, 2, 5]))
        starts.append(start)
        shape.append(count)
        steps.append(step)
    moved(m, m.b.slice(x, starts=tuple(starts), shape=tuple(shape), steps=tuple(steps)), x)


@recipe(3)
def concat(m: Maker) -> None:
    x = m.pick(lambda v: v.rank > 0)
    axis = m.rng.randrange(x.rank)
    parts = [x]
    for _ in range(m.rng.randint(1, 3)):
        fits = [v for v in m.pool if v.dtype == x.dtype and v.rank == x.rank and _same_but(v, x, axis)]
        if m.rng.random() < 0.5:
            parts.append(m.rng.choice(fits))
        else:
            parts.append(m.operand((*x.shape[:axis], m.rng.choice(STATIC), *x.shape[axis + 1 :])))
    m.rng.shuffle(parts)
    m.put(m.b.concat(*parts, axis=axis), max(m.magnitude[p] for p in parts), exact=all(p in m.exact for p in parts))


def _same_but(a: Value, b: Value, axis: int) -> bool:
    return all(n == axis or p == q for n, (p, q) in enumerate(zip(a.shape, b.shape)))


@recipe(2.5)
def pad(m: Maker) -> None:
    x = m.pick(lambda v: v.rank > 0)
    mode = m.rng.choice(["constant", "constant", "constant", "edge", "reflect", "wrap"])
    before, after = [], []
    for size in x.shape:
        least = -1 if mode == "constant" and isinstance(size, int) and size > 2 else 0
        most = 2 if mode == "constant" or (isinstance(size, int) and size > 2) else 0
        before.append(m.rng.randint(least, most))
        after.append(m.rng.randint(least, most))
    value = m.rng.choice([0.0, 0.0, 1.5]) if mode == "constant" else 0.0
    y = m.b.pad(x, before=tuple(before), after=tuple(after), mode=mode, value=value)
    m.put(y, max(m.magnitude[x], 1.5), exact=x in m.exact)


@recipe(1.5)
def expand(m: Maker) -> None:
    x = _any(m)
    shape = [m.rng.choice([2, 3, 5]) if size == 1 and m.rng.random() < 0.7 else size for size in x.shape]
    if len(shape) < 4 and m.rng.random() < 0.4:
        shape.insert(0, m.rng.choice([1, 2, 3]))
    moved(m, m.b.expand(x, shape=tuple(shape)), x)


@recipe(2)
def gather(m: Maker) -> None:
    x = m.pick(lambda v: any(isinstance(size, int) and size > 0 for size in v.shape))
    axis = m.rng.choice([a for a, size in enumerate(x.shape) if isinstance(size, int) and size > 0])
    size = x.shape[axis]
    assert isinstance(size, int)
    within, dtype = (-size, size), m.rng.choice([t.i64, t.i64, t.i32])
    shape = m.rng.choice([(), (1,), (3,), (2, 2)])
    indices = m.constant(shape, dtype, within) if m.rng.random() < 0.5 else m.input(shape, dtype, within)
    moved(m, m.b.gather(x, indices, axis=axis), x)


# ---------------------------------------------------------------- reductions, normalizations


@recipe(4)
def reduce(m: Maker) -> None:
    x = m.pick(lambda v: v.rank > 0, most=8.0)
    axes = tuple(a for a in range(x.rank) if m.rng.random() < 0.5) or (m.rng.randrange(x.rank),)
    how = m.rng.choice(["sum", "sum", "mean", "mean", "max", "min", "l1", "l2", "sum_square", "log_sum_exp"])
    y = getattr(m.b, f"reduce_{how}")(x, axes=axes, keepdims=m.rng.random() < 0.6)
    count = m.extent([x.shape[a] for a in axes])
    size = m.magnitude[x]
    bounds = {"sum": size * count, "l1": size * count, "l2": size * count, "sum_square": size * size * count}
    m.put(y, bounds.get(how, size + 8), exact=how in ("max", "min") and x in m.exact)


@recipe(0.5)
def arg_extreme(m: Maker) -> None:
    x = m.pick_exact(lambda v: v.rank > 0 and all(isinstance(s, int) and s > 0 for s in v.shape))
    y = getattr(m.b, m.rng.choice(["arg_max", "arg_min"]))(x, axis=m.rng.randrange(x.rank))
    m.put(y, 100.0, exact=True)


@recipe(2.5)
def softmax(m: Maker) -> None:
    x = m.pick(lambda v: v.rank > 0, most=8.0)
    axis = m.rng.randrange(x.rank) if m.rng.random() < 0.5 else x.rank - 1
    how = m.rng.choice(["op", "op", "log", "pattern"])
    if how == "pattern":
        e = m.b.exp(x - m.b.reduce_max(x, axes=(axis,)))
        m.put(m.b.div(e, m.b.reduce_sum(e, axes=(axis,))), 1.0)
    elif how == "log":
        m.put(m.b.log_softmax(x, axes=(axis,)), 20.0)
    else:
        m.put(m.b.softmax(x, axes=(axis,)), 1.0)


@recipe(2.5)
def normalize(m: Maker) -> None:
    x = m.pick(lambda v: v.rank > 1 and isinstance(v.shape[-1], int) and v.shape[-1] > 1, most=16.0)
    width = int(x.shape[-1])  # type: ignore[arg-type]
    scale, bias = m.constant((width,)), m.constant((width,))
    how = m.rng.choice(["layer", "rms", "pattern", "bare"])
    if how == "layer":
        y = m.b.layer_norm(x, scale, bias, epsilon=1e-2)
    elif how == "rms":
        y = m.b.rms_norm(x, scale, epsilon=1e-2)
    elif how == "bare":
        y = m.b.layer_norm(x, None, None, axis=m.rng.randrange(1, x.rank), epsilon=1e-2)
    else:
        deviation = x - m.b.reduce_mean(x, axes=(x.rank - 1,))
        variance = m.b.reduce_mean(deviation * deviation, axes=(x.rank - 1,))
        y = m.b.div(deviation, m.b.sqrt(variance + 1e-2)) * scale + bias
    m.put(y, 20.0)


@recipe(1)
def gelu_pattern(m: Maker) -> None:
    x = m.pick(most=8.0)
    half = m.b.mul(x, 0.5) if m.rng.random() < 0.5 else x
    y = m.b.mul(half, m.b.erf(x / 1.4142135381698608) + 1.0)
    m.put(y if half is not x else m.b.mul(y, 0.5), m.magnitude[x])
    if m.rng.random() < 0.3:
        m.put(m.b.mul(x, m.b.sigmoid(x)), m.magnitude[x])


# ---------------------------------------------------------------- products, convolutions, pools


@recipe(4)
def matmul(m: Maker) -> None:
    x = m.pick(lambda v: v.rank > 0 and isinstance(v.shape[-1], int), most=4.0)
    if m.rng.random() < 0.5:
        rows = m.dim() if m.rng.random() < 0.4 else m.rng.choice(TILES)
        x = m.input((*(m.shape(1, 2) if m.rng.random() < 0.3 else ()), rows, m.rng.choice(TILES)))
    inner, columns = x.shape[-1], m.rng.choice(TILES)
    assert isinstance(inner, int)
    if m.rng.random() < 0.65:
        w = m.constant((inner, columns)) if m.rng.random() < 0.7 else m.b.transpose(
            m.constant((columns, inner)), perm=(1, 0))  # fmt: skip
    else:
        batch = x.shape[:-2] if m.rng.random() < 0.5 else ()
        w = m.input((*batch, inner, m.rng.choice([columns, m.dim()])))
    y = m.put(m.b.matmul(x, w), m.magnitude[x] * 2 * inner, keep=False)
    if m.rng.random() < 0.5 and y.rank:
        y = m.b.add(y, m.operand(y.shape[-1:]))
    if m.rng.random() < 0.4:
        y = m.b.add(y, m.operand(y.shape))
    if m.rng.random() < 0.4:
        y = m.rng.choice([m.b.relu, m.b.gelu, m.b.tanh])(y)
    m.put(y, m.magnitude[x] * 2 * inner + 4)


@recipe(0.7)
def same_again(m: Maker) -> None:
    """The same work at two symbolic sizes, of which kernels may be shared where nothing tells them apart."""
    inner, how = m.rng.choice(TILES), m.rng.choice(["columns", "rows", "softmax", "sum", "pad"])
    for name in m.rng.sample(SYMBOLS, 2):
        x = m.input((inner, symbol(name)) if how != "rows" else (symbol(name), inner))
        if how == "columns":
            y = m.b.relu(m.b.matmul(m.input((3, inner)), x))
        elif how == "rows":
            y = m.b.matmul(x, m.constant((inner, 17)))
        elif how == "softmax":
            y = m.b.softmax(x, axes=(1,))
        elif how == "sum":
            y = m.b.reduce_sum(x, axes=(0,), keepdims=False)
        else:
            y = m.b.relu(m.b.pad(x, before=(0, 2), after=(1, 0)))
        m.put(y, 4.0 * inner)


@recipe(1)
def einsum(m: Maker) -> None:
    a, c, d, k = m.rng.choice([1, 2, 3]), m.dim(), m.rng.choice([m.rng.choice(TILES), m.dim()]), m.rng.choice(TILES)
    size = {"a": a, "h": 2, "c": c, "d": d, "k": k}
    left, right, out = m.rng.choice([
        ("ack", "akd", "acd"), ("achk", "adhk", "ahcd"), ("ck", "dk", "cd"), ("kc", "kd", "cd"), ("ack", "dk", "acd"),
        ("ahcd", "adhk", "achk"), ("ack", "k", "ac"), ("ac", "ad", "acd"), ("ack", "ack", "ac"),
    ])  # fmt: skip
    x, y = m.operand([size[i] for i in left]), m.operand([size[i] for i in right])
    m.put(m.b.einsum(x, y, equation=f"{left},{right}->{out}"), 4.0 * m.extent([size[i] for i in {*left} - {*out}]))


@recipe(1)
def branch(m: Maker) -> None:
    """A choice between two small graphs that share what they take."""
    x = m.pick(most=8.0)
    condition = m.input((), t.bool_)
    arms = []
    for _ in range(2):
        body = Graph("arm")
        inner = Maker(m.rng.randrange(1 << 30), m.float is t.f64)
        inner.graph, inner.b = body, Builder(body)
        value = inner.put(body.add_input("x", x.tensor), m.magnitude[x])
        for _ in range(m.rng.randint(1, 4)):
            unary(inner)
        results = [v for v in inner.pool if v.shape == x.shape and v is not value]
        body.set_outputs([inner.b.add(value, results[-1]), results[0]])
        arms.append(body)
    y, z = m.b.apply(OPS["if_"](then=arms[0], orelse=arms[1]), condition, x, x)  # type: ignore[call-arg]
    m.put(y, 30.0)
    m.put(z, 30.0)


@recipe(1.5)
def attention(m: Maker) -> None:
    """softmax(q k^T * scale + mask) v, with heads cut out of the last axis."""
    heads, width = m.rng.choice([1, 2, 3]), m.rng.choice([4, 8, 5, 16])
    length, keys = m.dim(), m.dim()

    def head(size: Any) -> Value:
        flat = m.input((batch, size, heads * width))
        return m.b.transpose(m.b.reshape(flat, shape=(batch, size, heads, width)), perm=(0, 2, 1, 3))

    batch: Any = m.rng.choice([1, 2])
    q, k, v = head(length), head(keys), head(keys)
    scores = m.b.mul(m.b.matmul(q, m.b.transpose(k, perm=(0, 1, 3, 2))), width**-0.5)
    if m.rng.random() < 0.5:
        scores = m.b.add(scores, m.input((length, keys)))
    y = m.b.matmul(m.b.softmax(scores, axes=(3,)), v)
    if m.rng.random() < 0.7:
        y = m.b.reshape(m.b.transpose(y, perm=(0, 2, 1, 3)), shape=(batch, length, heads * width))
    m.put(y, 2.0)


def _image(m: Maker, spatial: int) -> Value:
    """A value with channels and spatial axes: one of the pool, or an input."""
    fits = [v for v in m.pool if v.dtype == m.float and v.rank == spatial + 2 and isinstance(v.shape[1], int)]
    if fits and m.rng.random() < 0.6:
        return m.tame(m.rng.choice(fits[-3:]), 8.0)
    sides = [m.rng.choice([1, 2, 3, 5, 7, 8, 14]) for _ in range(spatial)]
    if m.has_symbols and m.rng.random() < 0.3:
        sides[m.rng.randrange(spatial)] = m.dim()  # type: ignore[call-overload]
    return m.input((m.rng.choice([1, 1, 2, m.dim()]), m.rng.choice(CHANNELS), *sides))


@recipe(5)
def conv(m: Maker) -> None:
    spatial = m.rng.choice([1, 2, 2, 2, 2, 2, 3])
    x = _image(m, spatial)
    channels = int(x.shape[1])  # type: ignore[arg-type]
    groups = m.rng.choice([1, 1, 1, channels, *(g for g in (2, 3, 4) if channels % g == 0)])
    per_group = m.rng.choice([1, 2, 3, 4]) if groups > 1 else m.rng.choice(CHANNELS)
    if groups == channels and m.rng.random() < 0.6:
        per_group = 1
    window = [m.rng.choice([1, 1, 2, 3, 3, 5]) for _ in range(spatial)]
    if m.rng.random() < 0.3:
        window = [1] * spatial
    dilation = tuple(m.rng.choice([1, 1, 1, 2]) for _ in range(spatial))
    stride = tuple(m.rng.choice([1, 1, 2, 3]) for _ in range(spatial))
    span = [(k - 1) * d + 1 for k, d in zip(window, dilation)]
    padding = [s if not isinstance(x.shape[2 + a], int) else (s if s > x.shape[2 + a] else m.rng.choice([0, s // 2]))
               for a, s in enumerate(span)]  # fmt: skip
    after = [p if m.rng.random() < 0.8 else p + 1 for p in padding]
    shape = (groups * per_group, channels // groups, *window)
    w = m.constant(shape) if m.rng.random() < 0.85 else m.input(shape)
    bias = m.constant((groups * per_group,)) if m.rng.random() < 0.5 else None
    y = m.b.conv(x, w, bias, stride=stride, pad=(*padding, *after), dilation=dilation, groups=groups)
    bound = m.magnitude[x] * 2 * m.extent(shape[1:]) + 2
    m.put(y, bound, keep=False)
    m.put(_after_conv(m, y, groups * per_group), bound * 4)


def _after_conv(m: Maker, y: Value, channels: int) -> Value:
    """Batch norm, residual and activation, as they follow convolutions."""
    if m.rng.random() < 0.4:
        variance = m.b.const(abs(m.b.content(m.constant((channels,)))) + 0.5, m.float)  # type: ignore[arg-type]
        y = m.b.batch_norm(y, m.constant((channels,)), m.constant((channels,)), m.constant((channels,)), variance)
    if m.rng.random() < 0.4:
        fits = [v for v in m.pool if v.dtype == y.dtype and v.shape == y.shape]
        y = m.b.add(y, m.rng.choice(fits) if fits else m.input(y.shape))
    if m.rng.random() < 0.5:
        y = m.rng.choice([m.b.relu, m.b.hard_swish, m.b.sigmoid, m.b.swish])(y)
    return y


@recipe(1)
def conv_transpose(m: Maker) -> None:
    x = _image(m, m.rng.choice([1, 2]))
    if not all(isinstance(size, int) and size > 0 for size in x.shape[2:]):
        raise OpError("of no elements a transposed convolution would make fewer than none")
    spatial, channels = x.rank - 2, int(x.shape[1])  # type: ignore[arg-type]
    groups = m.rng.choice([1, 1, *(g for g in (2, 3) if channels % g == 0)])
    window = [m.rng.choice([1, 2, 3]) for _ in range(spatial)]
    stride = tuple(m.rng.choice([1, 2, 3]) for _ in range(spatial))
    dilation = tuple(m.rng.choice([1, 1, 2]) for _ in range(spatial))
    extra = tuple(m.rng.randrange(s) for s in stride)
    shape = (channels, m.rng.choice([1, 2, 5, 16]), *window)
    bias = m.constant((shape[1] * groups,)) if m.rng.random() < 0.5 else None
    y = m.b.conv_transpose(x, m.constant(shape), bias, stride=stride, pad=(0,) * (2 * spatial), dilation=dilation,
                           extra=extra, groups=groups)  # fmt: skip
    m.put(y, m.magnitude[x] * 2 * m.extent((channels, *window)) + 2)


@recipe(2)
def pool(m: Maker) -> None:
    x = _image(m, m.rng.choice([1, 2, 2]))
    spatial = x.rank - 2
    if not all(isinstance(size, int) and size > 0 for size in x.shape[2:]):
        raise OpError("windows need known sides")
    window = tuple(m.rng.randint(1, min(3, int(size))) for size in x.shape[2:])  # type: ignore[arg-type]
    padding = tuple(m.rng.randrange(k) for k in window)
    attributes: dict[str, Any] = {
        "window": window, "stride": tuple(m.rng.choice([1, 2]) for _ in range(spatial)), "pad": padding * 2,
        "dilation": (1,) * spatial, "ceil": m.rng.random() < 0.3,
    }  # fmt: skip
    if m.rng.random() < 0.5:
        m.put(m.b.max_pool(x, **attributes), m.magnitude[x], exact=x in m.exact)
    else:
        m.put(m.b.average_pool(x, include_pad=m.rng.random() < 0.5, **attributes), m.magnitude[x])
