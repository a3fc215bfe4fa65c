"""What the C target runs: True, or the reason why not, by node. The same sentences make the tables and the errors."""

from __future__ import annotations

from collections.abc import Callable

from backends.c.kernels import unsupported
from backends.c.scalars import is_supported
from compiler.passes.lower import kernel_of
from ir.graph import Node
from ir.types import TensorType, Type

_WITHOUT_KERNEL = {"if_", "loop", "told", "bit_view"}


def accepts(node: Node) -> bool | str:
    """True, or why C code cannot be made for `node` as it is."""
    if node.op.name == "const":
        dtype = node.outputs[0].dtype
        return True if is_supported(dtype) else f"constants of type {dtype} have no form in C"
    for value in (*node.inputs, *node.outputs):
        if value is None:
            continue
        if not isinstance(value.type, TensorType):
            return f"%{value.name} is {value.type}; generated C works on tensors only"
        if not is_supported(value.type.dtype):
            return f"%{value.name} is {value.type}; generated C has no type {value.type.dtype}"
    if node.op.name in _WITHOUT_KERNEL:
        return True
    if type(node.op).has("expand"):
        return f"{node.op.name} is a composite"
    if not type(node.op).has("element") and not type(node.op).has("kernel"):
        return f"{node.op.name} has no form in C: only the interpreter runs it"
    return _kernel_reason(node) or True


def carries(type_: Type) -> bool | str:
    """True, or why an input or output of the model cannot have this type. Strings are cells of bytes by then."""
    if isinstance(type_, TensorType) and not is_supported(type_.dtype):
        return f"generated C has no type {type_.dtype}"
    return True


def remembering() -> Callable[[Node], bool | str]:
    """`accepts`, which looks once at nodes that differ only in names: networks repeat their layers."""
    known: dict[tuple[object, ...], bool | str] = {}

    def answer(node: Node) -> bool | str:
        if node.op.name == "const" or type(node.op).structural:
            return accepts(node)
        shape = (node.op, *(v and (v.type, v.blob is None) for v in node.inputs), *(v.type for v in node.outputs))
        if shape not in known:
            verdict = accepts(node)
            if verdict is not True and f"%{node.outputs[0].name}" in str(verdict):
                return verdict
            known[shape] = verdict
        return known[shape]

    return answer


def _kernel_reason(node: Node) -> str | None:
    kernel, _ = kernel_of(node)
    reason = unsupported(kernel)
    return None if reason is None else f"{node.op.name}: {reason}"
