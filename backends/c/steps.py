"""The steps of a program as the body of the function that callers run: calls, branches, loops, sizes told on the way.

What stands before the steps (checks of arguments) and around them is in `model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from backends.c.interface import Model, status
from backends.c.kernels import Function
from backends.c.names import Writer, comment, wrapped
from backends.c.scalars import storage_type
from backends.c.sizes import SUM, denominators, magnitude_text, paren, plain_text, size_text
from ir.demand import not_negative
from ir.dims import Dim, Size, bounded, decide_le, names, substitute, symbol, symbol_of
from ir.program import Bind, Branch, Call, Program, ProgramBuffer, Repeat, Step, told_by

_SOURCES_SHOWN = 8
_WORTH_THREADS = 16384  # scalar statements: some microseconds, which is what waking a thread takes


class Steps:
    """Writes the calls of a program, and afterwards the declarations of the pointers that they use."""

    def __init__(self, model: Model, out: Writer) -> None:
        self.model = model
        self.out = out
        self.pointers: dict[str, str] = {}
        self.sizes_used: set[str] = set()
        self.divided: dict[str, None] = {}
        self.checks_indices = False
        self.known: set[str] = set()
        self.demands = [pair for pair in model.program.equal_dims if model.program.late(pair)]
        self.profiled = 0
        self._slot_texts: dict[int, str] = {}

    def write(self, steps: list[Step] | tuple[Step, ...]) -> None:
        """Writes steps in order, branches as if statements."""
        for step in steps:
            if step.sources:
                self.out.line(f"/* {_sources_text(step.sources)} */")
            match step:
                case Call():
                    with self._profiling() if self.model.profile else nullcontext():
                        self._call(step)
                case Branch():
                    self._branch(step)
                case Bind():
                    self._bind(step)
                case Repeat():
                    self._repeat(step)

    @contextmanager
    def _profiling(self) -> Iterator[None]:
        """Takes the time of a call, and adds it to what the caller's memory has for it."""
        number, clock = self.profiled, f"{self.model.prefix}_nanoseconds()"
        self.profiled += 1
        with self.out.block(""):
            self.out.line(f"const int64_t start = profile == NULL ? 0 : {clock};")
            yield
            with self.out.block("if (profile != NULL)"):
                self.out.line(f"profile[{2 * number}] += {clock} - start;")
                self.out.line(f"profile[{2 * number + 1}]++;")

    def _branch(self, step: Branch) -> None:
        blocks = [(f"if (*{self._pointer(step.condition)} != 0) {{", step.then, step.equal_then)]
        if step.orelse or step.equal_orelse:
            blocks.append(("} else {", step.orelse, step.equal_orelse))
        for head, block, equal in blocks:
            self.out.line(head)
            self.out.depth += 1
            with self._demanding(equal, block):
                self.write(block)
            self.out.depth -= 1
        self.out.line("}")
        self.known |= told_by((step,)) & self.model.program.limits.keys()

    def _bind(self, step: Bind) -> None:
        """Sizes take their values, all at once; each is checked against its limit, or against what it must be."""
        program = self.model.program
        symbols = [symbol_of(size) for size, _ in step.pairs]
        told = [name if name is not None and name in program.limits else None for name in symbols]
        values = [f"*{self._pointer(v)}" if isinstance(v, str) else self.size(v) for _, v in step.pairs]
        if step.may_refuse:
            refused = " || ".join(f"{value} < 0" for value in values)
            self.out.line(f"if ({refused}) return {status(self.model, 'ERROR_UNSUPPORTED')};")
        if len(values) == 1 and not step.copies and told[0] is not None:
            if step.pairs[0][0] != step.pairs[0][1]:
                self.out.line(f"{self.size(step.pairs[0][0])} = {values[0]};")
            if not step.reserves:
                self._check_limit(told[0], self.size(symbol(told[0])))
        else:
            with self.out.block("") if any(told) else nullcontext():
                self._bind_together(step, told, values)
        if step.settled:
            self._check_equal({name for name in told if name is not None})

    def _bind_together(self, step: Bind, told: list[str | None], values: list[str]) -> None:
        """Several sizes, and copies between: new values are computed and checked before anything changes."""
        fresh: dict[str, str] = {}
        for (size, _), name, value in zip(step.pairs, told, values):
            if name is None or name in fresh:
                known = self.size(size) if name is None else fresh[name]
                self.out.line(f"if ({value} != {known}) return {status(self.model, 'ERROR_DIMS')};")
                continue
            fresh[name] = self.model.locals.of(f"new {name}")
            self.out.line(f"const int64_t {fresh[name]} = {value};")
            if not step.reserves:
                self._check_limit(name, fresh[name])
        for source, target in step.copies:
            type_ = self.model.program.buffers[source].type
            count = self.size(type_.elements * type_.dtype.itemsize)
            self.out.line(f"memcpy({self._pointer(target)}, {self._pointer(source)}, (size_t)({count}));")
        for name, value in fresh.items():
            self.out.line(f"{self.size(symbol(name))} = {value};")

    def _check_limit(self, name: str, value: str) -> None:
        limit = self.model.program.limits[name]
        least = self.model.program.bounds.get(name, (0, None))[0]
        checks = [f"{value} < {least}", f"{value} > {paren(*size_text(limit, self.model.local), SUM + 1)}"]
        self.sizes_used |= names(limit)
        self.out.line(f"if ({' || '.join(checks)}) return {status(self.model, 'ERROR_LIMIT')};")

    def _check_equal(self, told: set[str]) -> None:
        """Checks limits of products, and equalities that are demanded, of sizes which have just become known."""
        self.known |= told
        for group, limit in self.model.program.limits.products.items():
            if group & told and group <= self.known:
                factors = [f"(double)sesame_max_i64({self.size(symbol(name))}, 1)" for name in sorted(group)]
                most, wrong = self.size(limit), status(self.model, "ERROR_LIMIT")
                self.out.line(f"if ({' * '.join(factors)} > (double)({most})) return {wrong};")
        for pair in self.demands:
            mentioned = self.model.program.late(pair)
            if mentioned & told and mentioned <= self.known:
                self._check_pair(pair)

    @contextmanager
    def _demanding(self, pairs: Sequence[tuple[Size, Size]], block: Sequence[Step]) -> Iterator[None]:
        """Checks sizes that a block demands to be equal: at its start, or where they become known inside of it; and at
        its start that no size of what it uses is negative."""
        before, known = self.demands, {*self.known}
        inside: list[tuple[Size, Size]] = []
        for size in possibly_negative(self.model.program, block):
            if not_negative(size) not in pairs:
                self.out.line(f"if ({self.size(size)} < 0) return {status(self.model, 'ERROR_DIMS')};")
        for pair in pairs:
            if self.model.program.late(pair) <= self.known:
                self._check_pair(pair)
            else:
                inside.append(pair)
        self.demands = [*before, *inside]
        yield
        self.demands, self.known = before, known

    def _check_pair(self, pair: tuple[Size, Size]) -> None:
        self.out.line(f"if ({self.size(pair[0])} != {self.size(pair[1])}) return {status(self.model, 'ERROR_DIMS')};")

    def _repeat(self, step: Repeat) -> None:
        counter = self.size(symbol(step.step))
        limit = self.model.program.limits[step.step]
        conditions = [] if step.times is None else [f"{counter} < {self.size(step.times)}"]
        conditions += [] if step.trip is None else [f"{counter} < *{self._pointer(step.trip)}"]
        conditions += [] if step.going is None else [f"*{self._pointer(step.going)} != 0"]
        with self.out.block(f"for ({counter} = 0; {' && '.join(conditions)}; {counter}++)"):
            most = self.size(limit)
            if step.times is None:
                self.out.line(f"if ({counter} >= {most}) return {status(self.model, 'ERROR_LIMIT')};")
            self.known.add(step.step)
            with self._demanding(step.equal, step.body):
                self.write(step.body)

    def _pointer(self, name: str) -> str:
        if name not in self.pointers:
            self.pointers[name] = self.model.locals.fresh(name, "t")
        return self.pointers[name]

    def size(self, size: Size) -> str:
        """A size as C, of locals that are then declared."""
        self.sizes_used |= names(size)
        return plain_text(size, self.model.local)

    def _call(self, call: Call) -> None:
        function = self.model.functions[call.kernel.name]
        by_name = dict(zip((b.name for b in call.kernel.params), call.args))
        sizes = dict(zip(call.kernel.sizes, call.sizes))
        args = [self._argument(by_name[b.name], b.type.dtype) for b in function.buffers]
        args += [self.size(sizes[size]) for size in function.sizes]
        if function.checks_indices:
            self.checks_indices = True
            args.append("&invalid_index")
        self._check_told_shapes(call)
        lead = "  " * self.out.depth
        work = substitute(function.work, sizes)
        if function.range is None or (isinstance(work, int) and work < _WORTH_THREADS):
            if function.range is not None:
                args += ["0", self.size(substitute(function.range, sizes))]
            self.out.extend(wrapped(f"{lead}{function.symbol}(", args, ");"))
            self._stop_on_index(function)
            return
        self.divided[function.kernel.name] = None
        pool = "pool"
        if isinstance(work, Dim):
            self.sizes_used |= names(work)
            pool = f"{magnitude_text(work, self.model.local)} < {_WORTH_THREADS}.0 ? NULL : pool"
        with self.out.block(""):
            lead += "  "
            values = args or ["0"]
            self.out.extend(wrapped(f"{lead}struct {function.symbol}_args args = {{", values, "};"))
            count = self.size(substitute(function.range, sizes))
            self.out.line(f"sesame_parallel_for({pool}, {count}, {function.symbol}_part, &args);")
        self._stop_on_index(function)

    def _check_told_shapes(self, call: Call) -> None:
        """Sizes that a run tells may make others negative, or be 0 where others are divided by them: that is checked
        before memory is touched."""
        program = self.model.program
        shapes = (program.buffers[name].type.shape for name in call.args)
        told = dict.fromkeys(s for shape in shapes for s in shape if names(s) & program.limits.keys())
        with bounded(program.bounds):
            for divisor in dict.fromkeys(den for size in told for den in denominators(size)):
                self.out.line(f"if ({self.size(divisor)} == 0) return {status(self.model, 'ERROR_DIMS')};")
            for size in told:
                if decide_le(0, size) is not True:
                    self.out.line(f"if ({self.size(size)} < 0) return {status(self.model, 'ERROR_DIMS')};")

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
                pending.append(f"({self.size(slot.bytes)})")

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
            text = self.size(size)
            pointer = self._pointer(field.buffer.name)
            out.line(f"memcpy(io->{field.c_name}, {pointer}, (size_t)({text}));")
        return out.lines


def _sources_text(sources: tuple[str, ...]) -> str:
    shown = ", ".join(comment(source) or "?" for source in sources[:_SOURCES_SHOWN])
    more = len(sources) - _SOURCES_SHOWN
    return shown + (f", and {more} more" if more > 0 else "")


def possibly_negative(program: Program, steps: Iterable[Step]) -> list[Size]:
    """The sizes of what steps use that may be negative for small dims; what is inside of other steps is left out."""
    used = [name for step in steps if isinstance(step, Call) for name in step.args]
    shapes = dict.fromkeys(program.buffers[name].type.shape for name in used)
    with bounded(program.bounds):
        found = dict.fromkeys(s for shape in shapes for s in shape if not names(s) & program.limits.keys())
        return [size for size in found if decide_le(0, size) is not True]
