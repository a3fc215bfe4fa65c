"""The functions that callers see: `model.c`, which checks its arguments and calls kernels in order.

The code allocates nothing and keeps no state, so it may run in several threads with an arena each. Every failure is a
status; nothing is printed.
"""

from __future__ import annotations

from backends.c.interface import Model, arena_head, call_head, run_head, static_slot_bytes, status
from backends.c.kernels import Function
from backends.c.names import Identifiers, Writer, string_literal, wrapped
from backends.c.scalars import storage_type
from backends.c.sizes import literal, magnitude_text, plain_text
from backends.c.statuses import STATUSES
from backends.c.steps import Steps, possibly_negative
from backends.c.weights import ALIGNMENT
from ir.dims import Dim, Size, dim_text, greatest, names, symbol


def model_source(model: Model, version: str) -> str:
    """The text of model.c."""
    out = Writer()
    clock = ["#include <time.h>"] if model.profile else []
    for text in ('#include "model.h"', "", "#include <string.h>", *clock, "", '#include "model_kernels.h"', ""):
        out.line(text)
    body = Writer(1)
    steps = Steps(model, body)
    steps.write(model.program.steps)
    for name in steps.divided:
        _trampoline(model.functions[name], out)
    if model.profile:
        _clock(model, out)
    if model.sizes:
        _check_dims(model, out)
    _arena_function(model, out)
    _run_function(model, steps, out)
    _texts(model, version, out)
    _uniform_functions(model, out)
    return out.text


def _trampoline(function: Function, out: Writer) -> None:
    fields = Identifiers()
    names = [fields.fresh(b.name) for b in function.buffers] + [fields.fresh(size) for size in function.sizes]
    with out.block(f"struct {function.symbol}_args", "};"):
        for buffer, name in zip(function.buffers, names):
            constness = "const " if buffer.role in ("in", "const") else ""
            out.line(f"{constness}{storage_type(buffer.type.dtype)} *{name};")
        for name in names[len(function.buffers) :]:
            out.line(f"int64_t {name};")
        if function.checks_indices:
            names.append("invalid_index_")
            out.line("int *invalid_index_;")
        if not names:
            out.line("char unused;")
    with out.block(f"static void {function.symbol}_part(void *context, int64_t begin, int64_t end)"):
        if names:
            out.line(f"const struct {function.symbol}_args *args = context;")
        else:
            out.line("(void)context;")
        out.extend(wrapped(f"  {function.symbol}(", [*(f"args->{n}" for n in names), "begin", "end"], ");"))
    out.line()


def _clock(model: Model, out: Writer) -> None:
    with out.block(f"static int64_t {model.prefix}_nanoseconds(void)"):
        out.line("struct timespec now;")
        out.line("timespec_get(&now, TIME_UTC);")
        out.line("return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;")
    out.line()


def _dim_locals(model: Model, out: Writer, used: set[str] | None = None) -> None:
    for size in model.sizes:
        if used is None or size in used:
            out.line(f"const int64_t {model.local(size)} = dims->{model.dim(size)};")


def _check_dims(model: Model, out: Writer) -> None:
    """A function that says whether dims are within bounds and no size computed from them overflows."""
    program = model.program
    measured: dict[str, Size] = {}
    for buffer in program.buffers.values():
        size = program.capacity(buffer.type)
        measured.setdefault(dim_text(size), size)
    for size in (size for call in program.calls() for size in call.sizes):
        most = greatest(size, program.limits)
        measured.setdefault(dim_text(most), most)
    sizes = {magnitude_text(size, model.local): None for size in measured.values() if isinstance(size, Dim)}
    slots = [magnitude_text(slot.bytes, model.local) for slot in program.slots if isinstance(slot.bytes, Dim)]
    with out.block(f"static int {model.prefix}_dims_are_valid(const {model.prefix}_dims *dims)"):
        _dim_locals(model, out)
        for name in model.sizes:
            low, high = program.bounds.get(name, (0, None))
            above = "" if high is None else f" || {model.local(name)} > {plain_text(high, model.local)}"
            out.line(f"if ({model.local(name)} < {plain_text(low, model.local)}{above}) return 0;")
        out.line(
            "/* Sizes in bytes, measured in double: what follows computes them in integers, which must not overflow. */"
        )
        out.line("const double limit = (double)(SIZE_MAX / 16);")
        for text in sizes:
            out.line(f"if ({text} > limit) return 0;")
        if slots:
            out.line(f"double total = {float(static_slot_bytes(program))!r};")
            for text in slots:
                out.line(f"total += {text};")
            out.line("if (total > limit) return 0;")
        for size in possibly_negative(program, program.steps):
            out.line(f"if ({plain_text(size, model.local)} < 0) return 0;")
        for left, right in program.equal_dims:
            if program.late((left, right)):
                continue  # it is checked where they are told
            out.line(f"if ({plain_text(left, model.local)} != {plain_text(right, model.local)}) return 0;")
        out.line("return 1;")
    out.line()


def _arena_function(model: Model, out: Writer) -> None:
    symbolic = [slot.bytes for slot in model.program.slots if isinstance(slot.bytes, Dim)]
    with out.block(arena_head(model)):
        if model.sizes:
            out.line(f"if (dims == NULL || !{model.prefix}_dims_are_valid(dims)) return 0;")
            _dim_locals(model, out, {name for size in symbolic for name in names(size)})
        out.line(f"int64_t total = {literal(static_slot_bytes(model.program))};")
        for size in symbolic:
            out.line(f"total += {plain_text(size, model.local)};")
        out.line("return (size_t)total;")
    out.line()


def _run_function(model: Model, steps: Steps, out: Writer) -> None:
    head = run_head(model)
    program = model.program
    copies = steps.copies()
    told = [f"*io->{size.c_name} = {steps.size(symbol(size.name))};" for size in model.told]
    declarations = steps.declarations()
    with out.block("\n".join(head)):
        _argument_checks(model, out)
        _dim_locals(model, out, steps.sizes_used)
        for name in program.limits:
            if name in steps.sizes_used:
                out.line(f"int64_t {model.local(name)} = 0;")
        out.extend(declarations)
        if steps.checks_indices:
            out.line("int invalid_index = 0;")
        out.extend(steps.out.lines)
        out.extend(copies)
        for line in told:
            out.line(line)
        if not steps.divided:
            out.line("(void)pool;")
        if model.profile and not steps.profiled:
            out.line("(void)profile;")
        out.line(f"return {status(model, 'OK')};")
    out.line()


def _argument_checks(model: Model, out: Writer) -> None:
    null = status(model, "ERROR_NULL")
    if model.sizes:
        out.line(f"if (dims == NULL) return {null};")
        out.line(f"if (!{model.prefix}_dims_are_valid(dims)) return {status(model, 'ERROR_DIMS')};")
    out.line(f"if (io == NULL) return {null};")
    for field in (*model.fields, *model.told):
        out.line(f"if (io->{field.c_name} == NULL) return {null};")
    align = status(model, "ERROR_ARENA_ALIGN")
    if model.image.bytes and not model.embed:
        out.line(f"if (weights == NULL) return {null};")
        out.line(f"if ((uintptr_t)weights % {ALIGNMENT} != 0) return {align};")
    else:
        out.line("(void)weights;")
    out.line(f"const size_t needed = {model.prefix}_arena_bytes({'dims' if model.sizes else ''});")
    out.line(f"if (arena_bytes < needed) return {status(model, 'ERROR_ARENA_TOO_SMALL')};")
    out.line(f"if (needed > 0 && arena == NULL) return {null};")
    out.line(f"if ((uintptr_t)arena % {ALIGNMENT} != 0) return {align};")


def _texts(model: Model, version: str, out: Writer) -> None:
    with out.block(f"const char *{model.prefix}_strerror(int status)"), out.block("switch (status)"):
        for name, text in STATUSES:
            out.line(f"case {status(model, name)}: return {string_literal(text)};")
        out.line('default: return "unknown status";')
    out.line()
    text = f"{model.program.name} (sesame {version})"
    out.line(f"const char *{model.prefix}_version(void) {{ return {string_literal(text)}; }}")
    out.line()


def _uniform_functions(model: Model, out: Writer) -> None:
    with out.block(f"int64_t {model.prefix}_call_arena_bytes(const int64_t *dims)"):
        if model.sizes:
            values = ", ".join(f"dims[{i}]" for i in range(len(model.sizes)))
            out.line("if (dims == NULL) return -1;")
            out.line(f"const {model.prefix}_dims named = {{{values}}};")
            out.line(f"if (!{model.prefix}_dims_are_valid(&named)) return -1;")
            out.line(f"return (int64_t){model.prefix}_arena_bytes(&named);")
        else:
            out.line("(void)dims;")
            out.line(f"return (int64_t){model.prefix}_arena_bytes();")
    out.line()
    with out.block("\n".join(call_head(model))):
        out.line(f"if (io == NULL) return {status(model, 'ERROR_NULL')};")
        pointers = [f"io[{i}]" for i in range(len(model.fields) + len(model.told))] or ["0"]
        out.extend(wrapped(f"  const {model.prefix}_io pointers = {{", pointers, "};"))
        dims, profile = "", ", profile" if model.profile else ""
        if model.sizes:
            out.line(f"if (dims == NULL) return {status(model, 'ERROR_NULL')};")
            values = [f"dims[{i}]" for i in range(len(model.sizes))]
            out.extend(wrapped(f"  const {model.prefix}_dims sizes = {{", values, "};"))
            dims = "&sizes, "
        else:
            out.line("(void)dims;")
        out.line(f"return {model.prefix}_run(&pointers, {dims}weights, arena, arena_bytes, pool{profile});")
