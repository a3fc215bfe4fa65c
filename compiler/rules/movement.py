"""Movement that goes nowhere, or goes twice: reshapes, transposes, slices, pads, concatenations."""
# The functions of a rule take a builder, not a self:
# pyright: reportSelfClsParameterName=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportIndexIssue=false

from __future__ import annotations

import numpy as np

from ir.op import case
from ir.rule import Rule


class ReshapeOfReshape(Rule):
    """reshape(reshape(x))  =>  reshape(x)"""

    shared = True
    examples = [case("f32[2,6]", inner=(3, 4), outer=(12,))]

    def find(b, x):
        return b.reshape(b.reshape(x, shape=b.any_attr("inner")), shape=b.any_attr("outer"))

    def replace(b, x, m):
        return b.reshape(x, shape=m["outer"])


class IdentityReshape(Rule):
    """reshape(x, the shape of x)  =>  x"""

    examples = [case("f32[2,3]", shape=(2, 3))]

    def find(b, x):
        return b.reshape(x, shape=b.any_attr("shape"))

    def check(m):
        return m["x"].type == m.root.output.type or f"%{m['x'].name} has another shape"

    def replace(b, x):
        return x


class TransposeOfTranspose(Rule):
    """transpose(transpose(x, p), q)  =>  transpose(x, p[q])"""

    shared = True
    examples = [case("f32[2,3,4]", p=(2, 0, 1), q=(0, 2, 1))]

    def find(b, x):
        return b.transpose(b.transpose(x, perm=b.any_attr("p")), perm=b.any_attr("q"))

    def replace(b, x, m):
        return b.transpose(x, perm=tuple(m["p"][a] for a in m["q"]))


class TransposeOfOnes(Rule):
    """transpose(x) that only moves axes of size 1  =>  reshape(x)"""

    examples = [case("f32[2,1,4,1]", perm=(0, 3, 2, 1)), case("f32[2,3]", perm=(0, 1)), case("f32[1,3]", perm=(1, 0))]

    def find(b, x):
        return b.transpose(x, perm=b.any_attr("perm"))

    def check(m):
        kept = [a for a in m["perm"] if m["x"].shape[a] != 1]
        return kept == sorted(kept) or f"axes {kept} of {m['x'].type} are moved"

    def replace(b, x, m):
        same = m.root.output.type == x.type
        return x if same else b.reshape(x, shape=m.root.output.shape)


class IdentityExpand(Rule):
    """expand(x, the shape of x)  =>  x"""

    examples = [case("f32[2,3]", shape=(2, 3))]

    def find(b, x):
        return b.expand(x, shape=b.any_attr("shape"))

    def check(m):
        return m["x"].type == m.root.output.type or f"%{m['x'].name} has another shape"

    def replace(b, x):
        return x


class ExpandOfOnes(Rule):
    """expand(x) that only adds leading axes of size 1  =>  reshape(x)"""

    examples = [case("f32[3]", shape=(1, 1, 3))]

    def find(b, x):
        return b.expand(x, shape=b.any_attr("shape"))

    def check(m):
        shape, rank = m["shape"], m["x"].rank
        if len(shape) == rank or shape[len(shape) - rank :] != m["x"].shape:
            return f"%{m['x'].name} is repeated"
        return all(size == 1 for size in shape[: len(shape) - rank]) or f"%{m['x'].name} is repeated"

    def replace(b, x, m):
        return b.reshape(x, shape=m["shape"])


class IdentitySlice(Rule):
    """slice(x) that takes everything  =>  x"""

    examples = [case("f32[2,3]", starts=(0, 0), shape=(2, 3), steps=(1, 1))]

    def find(b, x):
        return b.slice(x, starts=b.any_attr("starts"), shape=b.any_attr("shape"), steps=b.any_attr("steps"))

    def check(m):
        everything = m["shape"] == m["x"].shape and all(start == 0 for start in m["starts"])
        return everything or f"it takes a part of %{m['x'].name}"

    def replace(b, x):
        return x


class IdentityPad(Rule):
    """pad(x) by nothing  =>  x"""

    examples = [case("f32[2,3]", np.array(0, np.float32), before=(0, 0), after=(0, 0), mode="constant", value=0.0)]

    def find(b, x, fill):
        attributes = {name: b.any_attr(name) for name in ("before", "after", "mode", "value")}
        return [b.pad(x, **attributes), b.pad(x, fill, **attributes)]

    def check(m):
        return all(size == 0 for size in (*m["before"], *m["after"])) or f"it adds to %{m['x'].name}"

    def replace(b, x, fill):
        return x


class IdentityTile(Rule):
    """tile(x, 1, 1, ...)  =>  x"""

    examples = [case("f32[2,3]", repeats=(1, 1))]

    def find(b, x):
        return b.tile(x, repeats=b.any_attr("repeats"))

    def check(m):
        return all(count == 1 for count in m["repeats"]) or f"it repeats %{m['x'].name}"

    def replace(b, x):
        return x


class ConcatOfOne(Rule):
    """concat(x)  =>  x"""

    examples = [case("f32[2,3]", axis=1)]

    def find(b, x):
        return b.concat(x, axis=b.any_attr("axis"))

    def replace(b, x):
        return x


class ConcatOfConcat(Rule):
    """concat(x, concat(y, z), ...) along one axis  =>  concat(x, y, z, ...); operands of size 0 drop out"""

    examples = []
    roots = ("concat",)

    def change(b, node):
        axis, flat = node.op.axis, []
        for value in node.inputs:
            if value.node is not None and value.node.op == node.op and _is_used_once(value):
                flat.extend(value.node.inputs)
            elif value.shape[axis] != 0:
                flat.append(value)
        if not flat or flat == node.inputs:
            return None
        return b.concat(*flat, axis=axis)


def _is_used_once(value):
    return sum(value.users.values()) == 1 and value not in value.graph.outputs


class SliceOfSlice(Rule):
    """slice(slice(x))  =>  slice(x)"""

    shared = True
    examples = [case("f32[8]", a=(7,), m=(4,), s=(-2,), c=(1,), n=(2,), t=(2,))]

    def find(b, x):
        inner = b.slice(x, starts=b.any_attr("a"), shape=b.any_attr("m"), steps=b.any_attr("s"))
        return b.slice(inner, starts=b.any_attr("c"), shape=b.any_attr("n"), steps=b.any_attr("t"))

    def replace(b, x, m):
        starts = tuple(a + c * s for a, c, s in zip(m["a"], m["c"], m["s"]))
        return b.slice(x, starts=starts, shape=m["n"], steps=tuple(s * t for s, t in zip(m["s"], m["t"])))
