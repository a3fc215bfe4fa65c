"""The functions that callers see: `model.h` and `model.c`, which checks its arguments and calls kernels in order.

The code allocates nothing and keeps no state, so it may run in several threads with an arena each. Every failure is a
status; nothing is printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backends.c.kernels import Function
from backends.c.names import Identifiers, Writer, comment, identifier, string_literal, wrapped
from backends.c.scalars import storage_type
from backends.c.sizes import literal, magnitude_text, plain_text
from backends.c.weights import ALIGNMENT, Image
from ir.dims import Dim, Size, bounded, decide_le, dim_text, names, substitute
from ir.program import Branch, Call, Program, ProgramBuffer, Step

STATUSES = (
    ("OK", "no error"),
    ("ERROR_NULL", "a pointer is null"),
    ("ERROR_ARENA_TOO_SMALL", "the arena is smaller than arena_bytes() says"),
    ("ERROR_ARENA_ALIGN", "the arena or the weights are not aligned to 64 bytes"),
    ("ERROR_DIMS", "a dimension is out of its bounds, or dimensions that must agree do not"),
    ("ERROR_INDEX", "an index in the input data lies outside the tensor that it indexes"),
)
_SOURCES_SHOWN = 8
_WORTH_THREADS = 16384  # scalar statements: some microseconds, which is what waking a thread takes
_LOCALS = (
    "io", "dims", "weights", "arena", "arena_bytes", "pool", "base", "data", "context", "needed", "total", "limit",
    "args", "invalid_index",
)  # fmt: skip
_MEMORY = ["const void *weights", "void *arena", "size_t arena_bytes", "sesame_pool *pool"]


@dataclass(frozen=True)
class Field:
    """A tensor or dimension as callers see it: the model's name, the C field, and the program buffer."""

    name: str
    c_name: str
    buffer: ProgramBuffer


class Model:
    """The C names of a program: prefix, io fields, dims fields, and how to spell sizes."""

    def __init__(self, program: Program, functions: dict[str, Function], image: Image, embed: bool) -> None:
        self.program = program
        self.functions = functions
        self.image = image
        self.embed = embed and image.bytes > 0
        self.prefix = identifier(program.name, "model")
        self.upper = self.prefix.upper()
        fields = Identifiers()
        self.inputs = [
            Field(n, fields.fresh(n), program.buffers[b]) for n, b in zip(program.input_names, program.inputs)
        ]
        self.outputs = [
            Field(n, fields.fresh(n), program.buffers[b]) for n, b in zip(program.output_names, program.outputs)
        ]
        self.sizes = program.sizes
        self._dims = Identifiers()
        for size in self.sizes:
            self._dims.of(size)
        self.locals = Identifiers(_LOCALS)
        self._local_dims = {size: self.locals.fresh(size) for size in self.sizes}

    def dim(self, name: str) -> str:
        """The field of NAME_dims for a symbolic size."""
        return self._dims.of(name)

    def local(self, name: str) -> str:
        """The local variable that holds a symbolic size."""
        return self._local_dims[name]

    @property
    def fields(self) -> list[Field]:
        return [*self.inputs, *self.outputs]

    @property
    def dims_parameter(self) -> str:
        """How functions take the dims, with a comma; empty for a model without symbolic sizes."""
        return f"const {self.prefix}_dims *dims, " if self.sizes else ""


def status(model: Model, name: str) -> str:
    """The enumerator of a status."""
    return f"{model.upper}_{name}"


def model_header(model: Model) -> str:
    """The text of model.h."""
    out = Writer()
    guard = f"{model.upper}_H"
    out.line(f"/* {comment(model.program.name)}: compiled from ONNX. See manifest.json for names, types and shapes. */")
    for text in (f"#ifndef {guard}", f"#define {guard}", "", "#include <stddef.h>", "#include <stdint.h>", ""):
        out.line(text)
    out.line('#include "sesame_pool.h"')
    out.line()
    for text in ("#ifdef __cplusplus", 'extern "C" {', "#endif", ""):
        out.line(text)
    with out.block("enum", "};"):
        for number, (name, text) in enumerate(STATUSES):
            out.line(f"{status(model, name)} = {number}, /* {text} */")
    out.line()
    _header_constants(model, out)
    _header_types(model, out)
    _header_functions(model, out)
    for text in ("#ifdef __cplusplus", "}", "#endif", "", "#endif"):
        out.line(text)
    return out.text


def _header_constants(model: Model, out: Writer) -> None:
    out.line(f"#define {model.upper}_WEIGHTS_BYTES {model.image.bytes}")
    if all(isinstance(slot.bytes, int) for slot in model.program.slots):
        out.line(f"#define {model.upper}_ARENA_BYTES {_static_slot_bytes(model.program)}")
    out.line()
    if model.embed:
        out.line("/* The weights, compiled in. */")
        out.line(f"extern const uint64_t {model.prefix}_weights[];")
        out.line()


def _header_types(model: Model, out: Writer) -> None:
    if model.sizes:
        with out.block(f"typedef struct {model.prefix}_dims", f"}} {model.prefix}_dims;"):
            for size in model.sizes:
                low, high = model.program.bounds.get(size, (0, None))
                bounds = f"{low}..{'' if high is None else high}"
                out.line(f"int64_t {model.dim(size)}; /* {comment(size)}: {bounds} */")
        out.line()
    with out.block(f"typedef struct {model.prefix}_io", f"}} {model.prefix}_io;"):
        for field in model.fields:
            constness = "const " if field in model.inputs else ""
            shape = ",".join(dim_text(size) for size in field.buffer.type.shape)
            dtype = field.buffer.type.dtype
            what = f"{comment(field.name)}: {dtype}[{comment(shape)}]"
            kind = "input" if field in model.inputs else "output"
            if f"{kind} {field.name}" in model.program.strings:
                what += ", strings: UTF-8, each padded with zero bytes to the size of the last axis"
            out.line(f"{constness}{storage_type(dtype)} *{field.c_name}; /* {what} */")
        if not model.fields:
            out.line("char unused;")
    out.line()


def _run_head(model: Model) -> list[str]:
    dims = [f"const {model.prefix}_dims *dims"] if model.sizes else []
    parts = [
        f"const {model.prefix}_io *io",
        *dims,
        *_MEMORY,
    ]
    return wrapped(f"int {model.prefix}_run(", parts, ")")


def _call_head(model: Model) -> list[str]:
    parts = [
        "void *const *io",
        "const int64_t *dims",
        *_MEMORY,
    ]
    return wrapped(f"int {model.prefix}_call(", parts, ")")


def _arena_head(model: Model) -> str:
    return f"size_t {model.prefix}_arena_bytes({model.dims_parameter.rstrip(', ') or 'void'})"


def _header_functions(model: Model, out: Writer) -> None:
    def declare(text: str, lines: list[str]) -> None:
        out.line(f"/* {text} */")
        out.extend([*lines[:-1], lines[-1] + ";"])
        out.line()

    weights = "`weights` is not used; `arena`" if model.embed else "`weights` and `arena`"
    invalid = " 0 if they are out of bounds." if model.sizes else ""
    declare(f"Bytes of working memory that a run needs.{invalid}", [_arena_head(model)])
    declare(
        f"Runs the model. {weights} must be aligned to {ALIGNMENT} bytes. With a null pool it\n"
        " * runs in the calling thread. Returns a status; the outputs hold nothing useful unless it is OK.",
        _run_head(model),
    )
    declare("What a status says.", [f"const char *{model.prefix}_strerror(int status)"])
    declare("The model and the compiler that made this code.", [f"const char *{model.prefix}_version(void)"])
    declare(
        "The same for callers that know the model only at run time: `io` holds the pointers of the io struct in\n"
        " * order, `dims` the numbers of the dims struct in order (ignored if there are none).",
        _call_head(model),
    )
    declare(
        "Bytes of working memory for these dims, -1 if they are out of bounds.",
        [f"int64_t {model.prefix}_call_arena_bytes(const int64_t *dims)"],
    )


def model_source(model: Model, version: str) -> str:
    """The text of model.c."""
    out = Writer()
    for text in ('#include "model.h"', "", "#include <string.h>", "", '#include "model_kernels.h"', ""):
        out.line(text)
    body = Writer(1)
    steps = _Steps(model, body)
    steps.write(model.program.steps)
    for name in steps.divided:
        _trampoline(model.functions[name], out)
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


def _dim_locals(model: Model, out: Writer, used: set[str] | None = None) -> None:
    for size in model.sizes:
        if used is None or size in used:
            out.line(f"const int64_t {model.local(size)} = dims->{model.dim(size)};")


def _names_in(values: list[Size]) -> set[str]:
    return {name for value in values for name in names(value)}


def _check_dims(model: Model, out: Writer) -> None:
    """A function that says whether dims are within bounds and no size computed from them overflows."""
    program = model.program
    measured: dict[str, Size] = {}
    for buffer in program.buffers.values():
        size = buffer.type.elements * buffer.type.dtype.itemsize
        measured.setdefault(dim_text(size), size)
    for size in (size for call in program.calls() for size in call.sizes):
        measured.setdefault(dim_text(size), size)
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
            out.line(f"double total = {float(_static_slot_bytes(program))!r};")
            for text in slots:
                out.line(f"total += {text};")
            out.line("if (total > limit) return 0;")
        for size in _possibly_negative(program, program.steps):
            out.line(f"if ({plain_text(size, model.local)} < 0) return 0;")
        for left, right in program.equal_dims:
            out.line(f"if ({plain_text(left, model.local)} != {plain_text(right, model.local)}) return 0;")
        out.line("return 1;")
    out.line()


def _possibly_negative(program: Program, steps: Iterable[Step]) -> list[Size]:
    """The sizes of what steps use that may be negative for small dims; what is inside of branches is left out."""
    used = [name for step in steps if isinstance(step, Call) for name in step.args]
    shapes = dict.fromkeys(program.buffers[name].type.shape for name in used)
    with bounded(program.bounds):
        return [size for size in dict.fromkeys(s for shape in shapes for s in shape) if decide_le(0, size) is not True]


def _static_slot_bytes(program: Program) -> int:
    return sum(slot.bytes for slot in program.slots if isinstance(slot.bytes, int))


def _arena_function(model: Model, out: Writer) -> None:
    symbolic = [slot.bytes for slot in model.program.slots if isinstance(slot.bytes, Dim)]
    with out.block(_arena_head(model)):
        if model.sizes:
            out.line(f"if (dims == NULL || !{model.prefix}_dims_are_valid(dims)) return 0;")
            _dim_locals(model, out, _names_in([*symbolic]))
        out.line(f"int64_t total = {literal(_static_slot_bytes(model.program))};")
        for size in symbolic:
            out.line(f"total += {plain_text(size, model.local)};")
        out.line("return (size_t)total;")
    out.line()


def _run_function(model: Model, steps: _Steps, out: Writer) -> None:
    head = _run_head(model)
    copies = steps.copies()
    declarations = steps.declarations()
    with out.block("\n".join(head)):
        _argument_checks(model, out)
        _dim_locals(model, out, steps.sizes_used)
        out.extend(declarations)
        if steps.checks_indices:
            out.line("int invalid_index = 0;")
        out.extend(steps.out.lines)
        out.extend(copies)
        if not steps.divided:
            out.line("(void)pool;")
        out.line(f"return {status(model, 'OK')};")
    out.line()


def _argument_checks(model: Model, out: Writer) -> None:
    null = status(model, "ERROR_NULL")
    if model.sizes:
        out.line(f"if (dims == NULL) return {null};")
        out.line(f"if (!{model.prefix}_dims_are_valid(dims)) return {status(model, 'ERROR_DIMS')};")
    out.line(f"if (io == NULL) return {null};")
    for field in model.fields:
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


class _Steps:
    """Writes the calls of a program, and afterwards the declarations of the pointers that they use."""

    def __init__(self, model: Model, out: Writer) -> None:
        self.model = model
        self.out = out
        self.pointers: dict[str, str] = {}
        self.sizes_used: set[str] = set()
        self.divided: dict[str, None] = {}
        self.checks_indices = False
        self._slot_texts: dict[int, str] = {}

    def write(self, steps: list[Step] | tuple[Step, ...]) -> None:
        """Writes steps in order, branches as if statements."""
        for step in steps:
            if step.sources:
                self.out.line(f"/* {_sources_text(step.sources)} */")
            if isinstance(step, Call):
                self._call(step)
            else:
                self._branch(step)

    def _branch(self, step: Branch) -> None:
        blocks = [(f"if (*{self._pointer(step.condition)} != 0) {{", step.then, step.equal_then)]
        if step.orelse or step.equal_orelse:
            blocks.append(("} else {", step.orelse, step.equal_orelse))
        for head, block, equal in blocks:
            self.out.line(head)
            self.out.depth += 1
            invalid = status(self.model, "ERROR_DIMS")
            for size in _possibly_negative(self.model.program, block):
                self.out.line(f"if ({self._size(size)} < 0) return {invalid};")
            for left, right in equal:
                self.out.line(f"if ({self._size(left)} != {self._size(right)}) return {invalid};")
            self.write(block)
            self.out.depth -= 1
        self.out.line("}")

    def _pointer(self, name: str) -> str:
        if name not in self.pointers:
            self.pointers[name] = self.model.locals.fresh(name, "t")
        return self.pointers[name]

    def _size(self, size: Size) -> str:
        self.sizes_used |= _names_in([size])
        return plain_text(size, self.model.local)

    def _call(self, call: Call) -> None:
        function = self.model.functions[call.kernel.name]
        by_name = dict(zip((b.name for b in call.kernel.params), call.args))
        sizes = dict(zip(call.kernel.sizes, call.sizes))
        args = [self._argument(by_name[b.name], b.type.dtype) for b in function.buffers]
        args += [self._size(sizes[size]) for size in function.sizes]
        if function.checks_indices:
            self.checks_indices = True
            args.append("&invalid_index")
        lead = "  " * self.out.depth
        work = substitute(function.work, sizes)
        if function.range is None or (isinstance(work, int) and work < _WORTH_THREADS):
            if function.range is not None:
                args += ["0", self._size(substitute(function.range, sizes))]
            self.out.extend(wrapped(f"{lead}{function.symbol}(", args, ");"))
            self._stop_on_index(function)
            return
        self.divided[function.kernel.name] = None
        pool = "pool"
        if isinstance(work, Dim):
            self.sizes_used |= _names_in([work])
            pool = f"{magnitude_text(work, self.model.local)} < {_WORTH_THREADS}.0 ? NULL : pool"
        with self.out.block(""):
            lead += "  "
            values = args or ["0"]
            self.out.extend(wrapped(f"{lead}struct {function.symbol}_args args = {{", values, "};"))
            count = self._size(substitute(function.range, sizes))
            self.out.line(f"sesame_parallel_for({pool}, {count}, {function.symbol}_part, &args);")
        self._stop_on_index(function)

    def _stop_on_index(self, function: Function) -> None:
        if function.checks_indices:
            self.out.line(f"if (invalid_index) return {status(self.model, 'ERROR_INDEX')};")

    def _argument(self, name: str, dtype: object) -> str:
        pointer = self._pointer(name)
        own = self.model.program.buffers[name].type.dtype
        if own == dtype:
            return pointer
        return f"(void *){pointer}" if not self._is_const(name) else f"(const void *){pointer}"

    def _is_const(self, name: str) -> bool:
        return self.model.program.root(name).place in ("input", "weight")

    def declarations(self) -> list[str]:
        """The pointers that the steps use, in the order of their first use, and the slots they lie in."""
        model = self.model
        roots = [model.program.root(name) for name in self.pointers]
        out = Writer(1)
        if any(root.place == "arena" for root in roots):
            out.line("unsigned char *const base = arena;")
        if any(root.place == "weight" for root in roots):
            source = f"(const void *){model.prefix}_weights" if model.embed else "weights"
            out.line(f"const unsigned char *const data = {source};")
        self._slots({root.slot for root in roots if root.place == "arena"}, out)
        for (name, pointer), root in zip(self.pointers.items(), roots):
            constness = "const " if self._is_const(name) else ""
            kind = storage_type(model.program.buffers[name].type.dtype)
            out.line(f"{constness}{kind} *const {pointer} = {self._address(root, constness, kind)};")
        return out.lines

    def _slots(self, used: set[int], out: Writer) -> None:
        """Offsets of slots one after another: numbers while they are known, then locals, each from the one before."""
        offset = 0
        before: str | None = None
        pending: list[str] = []
        for i, slot in enumerate(self.model.program.slots):
            if before is not None or pending:
                terms = [before] if before else []
                text = " + ".join([*terms, *pending, *([str(offset)] if offset else [])])
                if i in used:
                    self._slot_texts[i] = before = self.model.locals.fresh(f"slot_{i}")
                    out.line(f"const int64_t {before} = {text};")
                    pending, offset = [], 0
            else:
                self._slot_texts[i] = str(offset)
            if isinstance(slot.bytes, int):
                offset += slot.bytes
            else:
                pending.append(f"({self._size(slot.bytes)})")

    def _address(self, root: ProgramBuffer, constness: str, kind: str) -> str:
        if root.place in ("input", "output"):
            field = next(f for f in self.model.fields if f.buffer.name == root.name)
            own = storage_type(root.type.dtype)
            return f"io->{field.c_name}" if own == kind else f"({constness}void *)io->{field.c_name}"
        if root.place == "weight":
            return f"(const void *)(data + {self.model.image.offsets[root.name]})"
        slot = self._slot_texts[root.slot]
        if slot.isdigit():
            return f"(void *)(base + {int(slot) + root.offset})"
        return f"(void *)(base + {slot}{f' + {root.offset}' if root.offset else ''})"

    def copies(self) -> list[str]:
        """Copies of outputs that the steps do not write: those that are inputs, weights, or given twice."""
        model = self.model
        out = Writer(1)
        seen: set[str] = set()
        for field in model.outputs:
            root = model.program.root(field.buffer.name)
            if root.place == "output" and root.name == field.buffer.name and root.name not in seen:
                seen.add(root.name)
                continue
            size = field.buffer.type.elements * field.buffer.type.dtype.itemsize
            text = self._size(size)
            pointer = self._pointer(field.buffer.name)
            out.line(f"memcpy(io->{field.c_name}, {pointer}, (size_t)({text}));")
        return out.lines


def _sources_text(sources: tuple[str, ...]) -> str:
    shown = ", ".join(comment(source) or "?" for source in sources[:_SOURCES_SHOWN])
    more = len(sources) - _SOURCES_SHOWN
    return shown + (f", and {more} more" if more > 0 else "")


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
    with out.block("\n".join(_call_head(model))):
        out.line(f"if (io == NULL) return {status(model, 'ERROR_NULL')};")
        pointers = [f"io[{i}]" for i in range(len(model.fields))] or ["0"]
        out.extend(wrapped(f"  const {model.prefix}_io pointers = {{", pointers, "};"))
        dims = ""
        if model.sizes:
            out.line(f"if (dims == NULL) return {status(model, 'ERROR_NULL')};")
            values = [f"dims[{i}]" for i in range(len(model.sizes))]
            out.extend(wrapped(f"  const {model.prefix}_dims sizes = {{", values, "};"))
            dims = "&sizes, "
        else:
            out.line("(void)dims;")
        out.line(f"return {model.prefix}_run(&pointers, {dims}weights, arena, arena_bytes, pool);")
