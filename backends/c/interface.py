"""What callers see of a model in C: its names, and the text of `model.h`."""

from __future__ import annotations

from dataclasses import dataclass

from backends.c.kernels import Function
from backends.c.names import Identifiers, Writer, comment, identifier, wrapped
from backends.c.scalars import storage_type
from backends.c.statuses import STATUSES
from backends.c.weights import ALIGNMENT, Image
from ir.dims import Size, dim_text
from ir.program import Program, ProgramBuffer

_LOCALS = (
    "io", "dims", "weights", "arena", "arena_bytes", "pool", "base", "data", "context", "needed", "total", "limit",
    "args", "invalid_index",
)  # fmt: skip
_PROFILE_LOCALS = ("profile", "start")
_MEMORY = ["const void *weights", "void *arena", "size_t arena_bytes", "sesame_pool *pool"]


@dataclass(frozen=True)
class Field:
    """A tensor or dimension as callers see it: the model's name, the C field, and the program buffer."""

    name: str
    c_name: str
    buffer: ProgramBuffer


@dataclass(frozen=True)
class Told:
    """A size of outputs that only a run tells: its name, the C field that takes it, and what it is at most."""

    name: str
    c_name: str
    limit: Size


class Model:
    """The C names of a program: prefix, io fields, dims fields, and how to spell sizes."""

    def __init__(
        self, program: Program, functions: dict[str, Function], image: Image, embed: bool, profile: bool = False
    ) -> None:
        self.program = program
        self.functions = functions
        self.image = image
        self.embed = embed and image.bytes > 0
        self.profile = profile
        self.prefix = identifier(program.name, "model")
        self.upper = self.prefix.upper()
        fields = Identifiers()
        self.inputs = [
            Field(n, fields.fresh(n), program.buffers[b]) for n, b in zip(program.input_names, program.inputs)
        ]
        self.outputs = [
            Field(n, fields.fresh(n), program.buffers[b]) for n, b in zip(program.output_names, program.outputs)
        ]
        self.told = [Told(name, fields.fresh(name), program.limits[name]) for name in program.told]
        self.sizes = program.sizes
        self._dims = Identifiers()
        for size in self.sizes:
            self._dims.of(size)
        self.locals = Identifiers((*_LOCALS, *(_PROFILE_LOCALS if profile else ())))
        self._local_dims = {size: self.locals.fresh(size) for size in (*self.sizes, *program.limits)}

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
        out.line(f"#define {model.upper}_ARENA_BYTES {static_slot_bytes(model.program)}")
    if model.profile:
        out.line("/* How many calls of kernels there are: `profile` has two numbers for each. */")
        out.line(f"#define {model.upper}_PROFILE_STEPS {sum(1 for _ in model.program.calls())}")
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
            if model.program.kinds.get(f"{kind} {field.name}") == ["strings"]:
                what += ", strings: UTF-8, each padded with zero bytes to the size of the last axis"
            out.line(f"{constness}{storage_type(dtype)} *{field.c_name}; /* {what} */")
        for size in model.told:
            what = f"is set to the size {comment(size.name)}, at most {comment(dim_text(size.limit))}"
            out.line(f"int64_t *{size.c_name}; /* {what} */")
        if not model.fields:
            out.line("char unused;")
    out.line()


def _memory(model: Model) -> list[str]:
    return [*_MEMORY, "int64_t *profile"] if model.profile else _MEMORY


def run_head(model: Model) -> list[str]:
    """The head of NAME_run, in lines."""
    dims = [f"const {model.prefix}_dims *dims"] if model.sizes else []
    parts = [
        f"const {model.prefix}_io *io",
        *dims,
        *_memory(model),
    ]
    return wrapped(f"int {model.prefix}_run(", parts, ")")


def call_head(model: Model) -> list[str]:
    """The head of NAME_call, in lines."""
    parts = [
        "void *const *io",
        "const int64_t *dims",
        *_memory(model),
    ]
    return wrapped(f"int {model.prefix}_call(", parts, ")")


def arena_head(model: Model) -> str:
    """The head of NAME_arena_bytes."""
    return f"size_t {model.prefix}_arena_bytes({model.dims_parameter.rstrip(', ') or 'void'})"


def _header_functions(model: Model, out: Writer) -> None:
    def declare(text: str, lines: list[str]) -> None:
        out.line(f"/* {text} */")
        out.extend([*lines[:-1], lines[-1] + ";"])
        out.line()

    weights = "`weights` is not used; `arena`" if model.embed else "`weights` and `arena`"
    profiled = (
        "\n * Adds the nanoseconds that each call of a kernel took, and how often it ran, to the pairs in `profile`,"
        "\n * in the order of the calls; it may be null."
        if model.profile
        else ""
    )
    invalid = " 0 if they are out of bounds." if model.sizes else ""
    declare(f"Bytes of working memory that a run needs.{invalid}", [arena_head(model)])
    declare(
        f"Runs the model. {weights} must be aligned to {ALIGNMENT} bytes. With a null pool it\n"
        " * runs in the calling thread. Returns a status; the outputs hold nothing useful unless it is OK."
        f"{profiled}",
        run_head(model),
    )
    declare("What a status says.", [f"const char *{model.prefix}_strerror(int status)"])
    declare("The model and the compiler that made this code.", [f"const char *{model.prefix}_version(void)"])
    declare(
        "The same for callers that know the model only at run time: `io` holds the pointers of the io struct in\n"
        " * order, `dims` the numbers of the dims struct in order (ignored if there are none).",
        call_head(model),
    )
    declare(
        "Bytes of working memory for these dims, -1 if they are out of bounds.",
        [f"int64_t {model.prefix}_call_arena_bytes(const int64_t *dims)"],
    )


def static_slot_bytes(program: Program) -> int:
    """Bytes of the slots whose size is a number."""
    return sum(slot.bytes for slot in program.slots if isinstance(slot.bytes, int))
