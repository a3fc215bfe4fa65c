"""What must hold of a program: calls that fit their kernels, buffers that exist, and a memory plan without clashes.

Sizes that stay symbolic are compared exactly where the bounds decide, and at sample values of the symbols otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from ir.demand import resolve
from ir.dims import Size, bounded, decide_le, evaluate, greatest, names, substitute
from ir.kernel import Kernel
from ir.kernel_verify import kernel_problems
from ir.program import Bind, Branch, Call, Program, ProgramBuffer, Repeat, Step, blocks_of, touched
from ir.types import DType, TensorType, bool_, i64
from ir.verify import shapes_agree

ALIGNMENT = 64
"""Bytes that the size of every slot is a multiple of."""


def program_problems(program: Program) -> Iterator[str]:
    """One sentence for each rule that the program breaks."""
    by_name: dict[str, Kernel] = {}
    for call in program.calls():
        if by_name.setdefault(call.kernel.name, call.kernel) != call.kernel:
            yield f"two kernels are called {call.kernel.name}"
    for kernel in by_name.values():
        yield from (f"kernel {kernel.name}: {problem}" for problem in kernel_problems(kernel))
    yield from _interface_problems(program)
    sound = True
    for problem in (*_buffer_problems(program), *_step_problems(program, program.steps)):
        sound = False
        yield problem
    if sound:
        yield from _plan_problems(program)


def _interface_problems(program: Program) -> Iterator[str]:
    for title, buffers, outer in (
        ("input", program.inputs, program.input_names),
        ("output", program.outputs, program.output_names),
    ):
        if len(buffers) != len(outer):
            yield f"{len(buffers)} {title}s have {len(outer)} names"
        yield from (f"{title} {name} is not a buffer" for name in buffers if name not in program.buffers)


def _buffer_problems(program: Program) -> Iterator[str]:
    for name, buffer in program.buffers.items():
        if buffer.name != name:
            yield f"buffer {name} calls itself {buffer.name}"
        match buffer.place:
            case "weight":
                blob = buffer.blob
                if blob is None:
                    yield f"weight {name} has no blob"
                elif TensorType(blob.dtype, blob.shape) != buffer.type:
                    yield f"weight {name} is {buffer.type}, its blob {TensorType(blob.dtype, blob.shape)}"
            case "arena" if program.slots or buffer.slot >= 0:  # before memory is planned there are no slots
                if not 0 <= buffer.slot < len(program.slots):
                    yield f"{name} lies in slot {buffer.slot} of {len(program.slots)}"
                elif buffer.offset < 0 or not _fits(program, buffer):
                    yield f"{name}: {buffer.type} at {buffer.offset} does not fit slot {buffer.slot}"
            case "view":
                yield from _view_problems(program, buffer)
    for i, slot in enumerate(program.slots):
        if any(value % ALIGNMENT for value in _values(slot.bytes, program)):
            yield f"slot {i} has {slot.bytes} bytes, not a multiple of {ALIGNMENT}"


def _view_problems(program: Program, buffer: ProgramBuffer) -> Iterator[str]:
    seen = {buffer.name}
    base = buffer
    while base.place == "view":
        if base.base not in program.buffers:
            yield f"view {base.name} is of {base.base}, which is not a buffer"
            return
        view, base = base, program.buffers[base.base]
        if base.name in seen:
            yield f"view {buffer.name} is a view of itself"
            return
        seen.add(base.name)
        if _is_larger(program, view, base):
            yield f"view {view.name}: {view.type} is larger than {base.name}: {base.type}"
            return


def _is_larger(program: Program, view: ProgramBuffer, base: ProgramBuffer) -> bool:
    """Whether a view may have more bytes than what it is of. Sizes that a run tells are demanded to fit."""
    demands = [*program.equal_dims, *_block_demands(program)]
    if view.type.dtype == base.type.dtype and shapes_agree(
        (view.type.elements,), (base.type.elements,), program.bounds, demands
    ):
        return False
    if (names(view.type.elements) | names(base.type.elements)) & program.limits.keys():
        most = [program.capacity(view.type), greatest(_bytes(view), program.limits)]
        return all(_exceeds(program, size, program.capacity(base.type)) for size in most)
    return _exceeds(program, _bytes(view), _bytes(base))


def _block_demands(program: Program) -> Iterator[tuple[Size, Size]]:
    """What loops and branches demand of sizes where they run."""
    for step in program.walk():
        match step:
            case Branch():
                yield from (*step.equal_then, *step.equal_orelse)
            case Repeat():
                yield from step.equal


def _fits(program: Program, buffer: ProgramBuffer) -> bool:
    return not _exceeds(program, buffer.offset + program.capacity(buffer.type), program.slots[buffer.slot].bytes)


def _bytes(buffer: ProgramBuffer) -> Size:
    return buffer.type.elements * buffer.type.dtype.itemsize


# Calls.


def _step_problems(program: Program, steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        match step:
            case Call():
                yield from (f"{_show(step)}: {problem}" for problem in _call_problems(program, step))
            case Branch(condition=name):
                yield from _scalar_problems(program, "branch", name, bool_)
            case Bind():
                for _, value in step.pairs:
                    if isinstance(value, str):
                        yield from _scalar_problems(program, "bind", value, i64)
                yield from _copy_problems(program, step)
            case Repeat(trip=trip, going=going):
                if trip is not None:
                    yield from _scalar_problems(program, "loop", trip, i64)
                if going is not None:
                    yield from _scalar_problems(program, "loop", going, bool_)
        for block in blocks_of(step):
            yield from _step_problems(program, block)


def _copy_problems(program: Program, step: Bind) -> Iterator[str]:
    for source, target in step.copies:
        if source not in program.buffers or target not in program.buffers:
            yield f"copy of {source} to {target}, which are not both buffers"
        elif program.buffers[source].type.dtype != program.buffers[target].type.dtype:
            yield f"copy of {source} to {target}, which have other elements"
        elif program.root(source).name == program.root(target).name:
            yield f"copy of {source} to {target}, which are the same memory"
        elif program.root(target).place in ("weight", "input"):
            yield f"copy to {target}, which is in {program.root(target).place} memory"


def _scalar_problems(program: Program, what: str, name: str, dtype: DType) -> Iterator[str]:
    """What is wrong with the buffer of one number that a step reads."""
    buffer = program.buffers.get(name)
    if buffer is None:
        yield f"{what} on {name}, which is not a buffer"
    elif buffer.type.dtype != dtype or buffer.type.elements != 1:
        yield f"{what} on {name}: {buffer.type}, not one {dtype}"


def _call_problems(program: Program, call: Call) -> Iterator[str]:
    kernel = call.kernel
    if len(call.sizes) != len(kernel.sizes):
        yield f"{len(call.sizes)} sizes for {len(kernel.sizes)} ({', '.join(kernel.sizes)})"
        return
    if len(call.args) != len(kernel.params):
        yield f"{len(call.args)} arguments for {len(kernel.params)} parameters"
        return
    sizes: Mapping[str, Size] = dict(zip(kernel.sizes, call.sizes))
    for param, name in zip(kernel.params, call.args):
        buffer = program.buffers.get(name)
        if buffer is None:
            yield f"{name} is not a buffer"
            continue
        with bounded(program.bounds):
            expected = param.type.with_shape(substitute(size, sizes) for size in param.type.shape)
        if not _takes(program, expected, buffer.type):
            yield f"parameter {param.name} is {expected}, {name} is {buffer.type}"
        if param.role in ("out", "inout") and program.root(name).place in ("weight", "input"):
            yield f"parameter {param.name} is written, {name} is in {program.root(name).place} memory"


def _takes(program: Program, expected: TensorType, given: TensorType) -> bool:
    """Whether a buffer fits a parameter. Memory is dense: a single axis takes any shape of as many elements."""
    shape = (given.elements,) if expected.rank == 1 and given.rank != 1 else given.shape
    return expected.dtype == given.dtype and shapes_agree(expected.shape, shape, program.bounds, program.equal_dims)


def _show(call: Call) -> str:
    origin = f" (from {', '.join(call.sources)})" if call.sources else ""
    return f"{call.kernel.name}({', '.join(call.args)}){origin}"


# Memory.


def _plan_problems(program: Program) -> Iterator[str]:
    """Reads before writes, outputs never written, and arena buffers that share bytes while both are in use."""
    written: set[str] = set()
    yield from _order_problems(program, program.steps, written)
    for name in program.outputs:
        if _is_unwritten(program, name, written):
            yield f"output {name} is never written"
    lives = _lifetimes(program)
    by_slot: dict[int, list[ProgramBuffer]] = {}
    for buffer in program.buffers.values():
        if buffer.place == "arena" and buffer.slot >= 0 and buffer.name in lives:
            by_slot.setdefault(buffer.slot, []).append(buffer)
    for buffers in by_slot.values():
        for a, b in combinations(buffers, 2):
            apart = lives[a.name][1] < lives[b.name][0] or lives[b.name][1] < lives[a.name][0]
            if not apart and _share_bytes(program, a, b):
                yield f"{a.name} and {b.name} are in use at the same time and share bytes of slot {a.slot}"


def _order_problems(program: Program, steps: Sequence[Step], written: set[str]) -> Iterator[str]:
    """Reads of memory that no earlier step wrote, and calls that write what they also have under another name.

    Adds to `written` what is written whichever way branches go.
    """
    for step in steps:
        if isinstance(step, Call):
            yield from _call_order_problems(program, step, written)
            continue
        copied: set[str] = set()
        for source, target in step.copies if isinstance(step, Bind) else ():
            if source not in copied and _is_unwritten(program, source, written):
                yield f"copy of {source}, which is not written before"
            copied.add(program.root(target).name)
        written |= copied
        for name in touched(step):
            if _is_unwritten(program, name, written):
                yield f"a {type(step).__name__.lower()} step reads {name}, which is not written before"
        ways = [set(written) for _ in blocks_of(step)]
        for block, way in zip(blocks_of(step), ways):
            yield from _order_problems(program, block, way)
        written |= set.intersection(*ways) if ways else set()  # a loop without a step stacks no rows to read


def _call_order_problems(program: Program, call: Call, written: set[str]) -> Iterator[str]:
    roots = [program.root(name).name for name in call.args]
    for param, name, root in zip(call.kernel.params, call.args, roots):
        if param.role != "out" and _is_unwritten(program, name, written):
            yield f"{_show(call)}: {name} is read before it is written"
        if param.role in ("out", "inout") and roots.count(root) > 1:
            yield f"{_show(call)}: {name} is written, and another argument is the same memory"
    written |= {root for param, root in zip(call.kernel.params, roots) if param.role in ("out", "inout")}


def _is_unwritten(program: Program, name: str, written: set[str]) -> bool:
    root = program.root(name)
    return root.place in ("arena", "output") and root.name not in written and root.type.elements != 0


def _lifetimes(program: Program) -> dict[str, tuple[int, int]]:
    """The first and last step that touches each buffer that owns memory, counting steps as they are written down. What
    a loop shares with the rest of the program is in use for all of it."""
    uses: dict[str, list[int]] = {}
    loops: list[tuple[int, int]] = []
    end = _count_uses(program, program.steps, 0, uses, loops)
    for name in program.outputs:
        if program.root(name).name in uses:
            uses[program.root(name).name].append(end)
    lives = {name: (min(positions), max(positions)) for name, positions in uses.items()}
    for start, last in loops:
        for name, (first, final) in lives.items():
            if first <= last and final >= start and (first < start or final > last):
                lives[name] = (min(first, start), max(final, last))
    return lives


def _count_uses(
    program: Program, steps: Sequence[Step], position: int, uses: dict[str, list[int]], loops: list[tuple[int, int]]
) -> int:
    """Notes the positions of steps that touch a buffer, and the ranges of loops, inner first; the next position."""
    for step in steps:
        start = position
        for name in touched(step):
            uses.setdefault(program.root(name).name, []).append(position)
        position += 1
        for block in blocks_of(step):
            position = _count_uses(program, block, position, uses, loops)
        if isinstance(step, Repeat):
            loops.append((start, position - 1))
    return position


def _share_bytes(program: Program, a: ProgramBuffer, b: ProgramBuffer) -> bool:
    low, high = sorted((a, b), key=lambda buffer: buffer.offset)
    if 0 in (program.capacity(a.type), program.capacity(b.type)):
        return False  # a buffer of no bytes may lie anywhere
    return _exceeds(program, low.offset + program.capacity(low.type), high.offset)


def _exceeds(program: Program, size: Size, limit: Size) -> bool:
    """Whether `size` is greater than `limit` for some sizes of the program."""
    size, limit = resolve(size, program.equal_dims), resolve(limit, program.equal_dims)
    with bounded(program.bounds):
        verdict = decide_le(size, limit)
    if verdict is not None:
        return not verdict
    return any(value > 0 for value in _values(size - limit, program))


def _values(size: Size, program: Program) -> list[int]:
    """A size at a few values of its symbols within their bounds."""
    if isinstance(size, int):
        return [size]
    found = []
    for sample in range(4):
        values: dict[str, int] = {}
        for i, name in enumerate(sorted(names(size))):
            least, greatest = program.bounds.get(name, (0, None))
            wanted = (max(least, 1), least + 3 + 2 * i, least + 17 + 5 * i, least + 1000)[sample]
            values[name] = wanted if greatest is None else min(wanted, greatest)
        found.append(evaluate(size, values))
    return found
