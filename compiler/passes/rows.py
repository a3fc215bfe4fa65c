"""Kernels that go through rows, and several of them as one: what `join` is made of.

A row is one iteration of the outer loops that kernels share. Within it a value of one element becomes a name, an array
that is cheap to compute is computed where it is read, and any other array lies in the row of the result, in a local
array, or, where nothing else holds it, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ir import types as t
from ir.access import any_varies
from ir.dims import Size, names, substitute, symbol, symbol_of
from ir.element import Names
from ir.expr import Apply, Cast, Expr, Index, Load, Var, transform, walk
from ir.functions import COSTLY
from ir.kernel import (
    Assign,
    Buffer,
    For,
    Kernel,
    Let,
    Local,
    Stmt,
    Store,
    Variable,
    exprs_of,
    map_exprs,
    map_stmts,
    rename,
    walk_stmts,
)
from ir.program import Call
from ir.types import TensorType

_CHEAP = 6
"""Arithmetic for one element that is rather repeated than stored and read again."""
_LOCAL_BYTES = 16384
_PARALLEL = 2
"""Loops over rows that threads share: their numbers are found by divisions."""


@dataclass(frozen=True)
class Form:
    """A kernel that is loops around statements, the last of which stores its one result. A reduction gathers along
    contiguous memory inside of its loops; a function of elements has nothing but the store in them."""

    loops: tuple[For, ...]
    body: tuple[Stmt, ...]

    @property
    def store(self) -> Store:
        last = self.body[-1]
        assert isinstance(last, Store)
        return last

    @property
    def is_reduction(self) -> bool:
        return len(self.body) > 1

    def loads(self, buffer: str) -> list[Load]:
        """The distinct loads of a buffer."""
        exprs = [e for s in walk_stmts(self.body) for e in walk(*exprs_of(s))]
        return list(dict.fromkeys(e for e in exprs if isinstance(e, Load) and e.buffer == buffer))

    def axes(self, index: tuple[Expr, ...], rows: int) -> tuple[int, ...] | None:
        """The axes along which an index is the number of the row, for each of the first `rows` loops."""
        found = []
        for loop in self.loops[:rows]:
            own = [axis for axis, i in enumerate(index) if isinstance(i, Index) and i.value == symbol(loop.var)]
            if not own:
                return None
            found.append(own[0])
        return tuple(found)


def form_of(kernel: Kernel) -> Form | None:
    """The form of a kernel that may be joined with others; None for any other kernel."""
    loops: list[For] = []
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], For) and not isinstance(body[0].extent, Expr):
        loops.append(body[0])
        body = body[0].body
    outs = [b.name for b in kernel.params if b.role not in ("in", "const")]
    stores = [s for s in walk_stmts(kernel.body) if isinstance(s, Store)]
    if not loops or len(outs) != 1 or len(stores) != 1 or stores[0] is not body[-1] or stores[0].function is not None:
        return None
    form = Form(tuple(loops), body)
    if kernel.buffer(outs[0]).role != "out" or stores[0].buffer != outs[0] or form.loads(outs[0]):
        return None
    if form.axes(form.store.index, len(loops) if form.is_reduction else 0) is None:
        return None
    return form if not form.is_reduction or _gathers_rows(form) else None


def _gathers_rows(form: Form) -> bool:
    """Whether what stands before the store gathers, along contiguous memory, what belongs to one row only."""
    kinds = (Variable, Let, For, Assign)
    if not all(isinstance(s, kinds) for s in walk_stmts(form.body[:-1])):
        return False
    loops = [s for s in walk_stmts(form.body) if isinstance(s, For)]
    if not loops or any(isinstance(loop.extent, Expr) for loop in loops):
        return False
    inner = {loop.var for loop in loops}
    innermost = {loop.var for loop in loops if not any(isinstance(s, For) for s in loop.body)}
    for load in (e for s in walk_stmts(form.body) for e in walk(*exprs_of(s)) if isinstance(e, Load)):
        used = {name for i in load.index for e in walk(i) if isinstance(e, Index) for name in names(e.value)}
        if not used & inner:
            continue
        if not any(is_along(load.index, var) for var in innermost & used):
            return False
        if form.axes(load.index, len(form.loops)) is None:
            return False
    return True


def is_along(index: tuple[Expr, ...], var: str) -> bool:
    """Whether the last place of an index grows by one with a loop variable."""
    return bool(index) and isinstance(index[-1], Index) and var not in names(index[-1].value - symbol(var))


@dataclass
class Member:
    """A call of a group with its kernel in the group's names: what it does for one row."""

    form: Form
    out: str
    type: TensorType
    rows: int

    @property
    def inner(self) -> tuple[For, ...]:
        """The loops of a function of elements within a row."""
        return self.form.loops[self.rows :]

    @property
    def is_scalar(self) -> bool:
        """Whether it makes one element in each row."""
        return not self.inner

    @property
    def places(self) -> dict[str, int] | None:
        """The axis of each loop within a row, where the result is stored at the loops' own places; None elsewhere."""
        found = {}
        for axis, i in enumerate(self.form.store.index):
            name = symbol_of(i.value) if isinstance(i, Index) else None
            if name is None and not (isinstance(i, Index) and isinstance(i.value, int)):
                return None
            if name is not None:
                found[name] = axis
        inner = [loop.var for loop in self.inner]
        return {var: found[var] for var in inner} if found.keys() >= set(inner) else None


@dataclass
class Naming:
    """One set of names for the kernels of a group: sizes of the program and its buffers have one name each."""

    names: Names = field(default_factory=Names)
    sizes: dict[str, str] = field(default_factory=dict)
    params: dict[str, Buffer] = field(default_factory=dict)

    def of_call(self, call: Call, rows: Sequence[str], count: int) -> Kernel:
        """The kernel of a call in the group's names. Its first `count` loops are `rows`."""
        kernel, mapping = call.kernel, dict[str, str]()
        for own, size in zip(kernel.sizes, call.sizes):
            name = symbol_of(size)
            assert name is not None
            if name not in self.sizes:
                self.sizes[name] = self.names.fresh(own)
            mapping[own] = self.sizes[name]
        for buffer, arg in zip(kernel.params, call.args):
            mapping[buffer.name] = self.params[arg].name if arg in self.params else self.names.fresh(buffer.name)
        bound = [s for s in walk_stmts(kernel.body) if isinstance(s, (For, Let, Variable, Local))]
        for number, stmt in enumerate(bound):
            own = stmt.var if isinstance(stmt, For) else stmt.name
            mapping[own] = rows[number] if number < count else self.names.fresh(own)
        renamed = rename(kernel, mapping)
        for buffer, arg in zip(renamed.params, call.args):
            if arg not in self.params or buffer.role == "out":
                self.params[arg] = buffer
        return renamed


def joined(name: str, calls: Sequence[Call], rows: int, internal: set[str]) -> tuple[Kernel, list[str], list[str]]:
    """One kernel for calls that go through the same `rows` loops, the names of the buffers that it takes, and the
    symbols that its sizes are. Nothing but the calls touches the buffers `internal`."""
    naming = Naming()
    members: list[Member] = []
    first = next(form for call in calls if (form := form_of(call.kernel)) is not None and form.is_reduction)
    row_names = [naming.names.fresh(loop.var) for loop in first.loops[:rows]]
    for call in calls:
        kernel = naming.of_call(call, row_names, rows)
        form = form_of(kernel)
        assert form is not None
        members.append(Member(form, call.args[-1], kernel.params[-1].type, rows))
    row = _Row(naming, members, internal)
    body = row.body()
    for number, loop in reversed(list(enumerate(members[0].form.loops[:rows]))):
        body = (replace(loop, body=body, mark="parallel" if number < _PARALLEL else ""),)
    kernel = Kernel(name, (), body)
    used = {e.buffer for s in walk_stmts(body) for e in walk(*exprs_of(s)) if isinstance(e, Load)}
    used |= {s.buffer for s in walk_stmts(body) if isinstance(s, Store)}
    args = [arg for arg, b in naming.params.items() if b.name in used]
    args.sort(key=lambda arg: (naming.params[arg].role == "out") + (arg == calls[-1].args[-1]))
    kernel = replace(kernel, params=tuple(naming.params[arg] for arg in args))
    back = {own: size for size, own in naming.sizes.items()}
    return kernel, args, [back[size] for size in kernel.sizes]


class _Row:
    """What the members of a group do for one row."""

    def __init__(self, naming: Naming, members: Sequence[Member], internal: set[str]) -> None:
        self.naming = naming
        self.members = members
        self.internal = internal
        self.known: dict[str, Callable[[Load], Expr]] = {}
        self.held = self._held()

    def body(self) -> tuple[Stmt, ...]:
        """The statements of a row, the local arrays first."""
        locals_: list[Stmt] = []
        result: list[Stmt] = []
        memo: dict[Expr, Expr] = {}

        def known(expr: Expr) -> Expr | None:
            is_known = isinstance(expr, Load) and expr.buffer in self.known
            return self.known[expr.buffer](expr) if is_known else None  # type: ignore[union-attr, arg-type]

        for member in self.members:
            memo.clear()
            stmts = map_stmts(member.form.body, lambda s: map_exprs(s, lambda e: transform(e, known, memo)))
            result += self._member(member, stmts, locals_)
        return (*locals_, *result)

    def _member(self, member: Member, stmts: tuple[Stmt, ...], locals_: list[Stmt]) -> list[Stmt]:
        """The statements of one member, whose reads are those of the group already."""
        *before, store = stmts
        assert isinstance(store, Store)
        buffer, is_internal = store.buffer, member.out in self.internal
        if member.is_scalar and member is not self.members[-1]:
            value, named = store.value, list[Stmt]()
            if not isinstance(value, Var):
                value = Var(value.dtype, self.naming.names.fresh(f"{buffer}_row"))
                named = [Let(value.name, store.value)]
            self.known[buffer] = lambda load: value
            return [*before, *named, *([] if is_internal else [replace(store, value=value)])]
        if is_internal and self._is_inlined(member, store):
            self.known[buffer] = _inlined(member, store)
            return []
        if member is self.held:
            store = replace(store, buffer=self.members[-1].form.store.buffer)
            target = store.buffer
            self.known[buffer] = lambda load: replace(load, buffer=target)
        elif is_internal and (local := self._local(member)) is not None:
            locals_.append(local)
            kept_axes = [axis for axis in range(len(store.index)) if axis not in self._row_axes(member)]
            store = Store(local.name, tuple(store.index[axis] for axis in kept_axes), store.value)
            self.known[buffer] = lambda load: Load(
                load.dtype, local.name, tuple(load.index[axis] for axis in kept_axes), None
            )
        made: tuple[Stmt, ...] = (*before, store)
        for loop in reversed(member.inner):
            made = (replace(loop, body=made, mark="vector" if made[-1] is store and _by_lane(store, loop.var) else ""),)
        return list(made)

    def _row_axes(self, member: Member) -> tuple[int, ...]:
        axes = member.form.axes(member.form.store.index, member.rows)
        assert axes is not None
        return axes

    def _reads(self, member: Member) -> list[Load]:
        """What other members read of a member's result."""
        return [load for other in self.members for load in other.form.loads(member.form.store.buffer)]

    def _is_inlined(self, member: Member, store: Store) -> bool:
        """Whether an array is computed where it is read: it is cheap, at a place that is known, and what it is made of
        lies as it does."""
        if member is self.members[-1] or member.places is None or _cost(store.value) > _CHEAP:
            return False
        places = [i for load in self._reads(member) for i in load.index]
        loads = [e for e in walk(store.value) if isinstance(e, Load)]
        innermost = member.inner[-1].var
        moving = [e.index for e in loads if any_varies(e.index, innermost)]
        if any(e.outside is not None for e in loads) or not all(is_along(index, innermost) for index in moving):
            return False
        return all(isinstance(i, Index) for i in (*places, *(i for e in loads for i in e.index)))

    def _local(self, member: Member) -> Local | None:
        """The local array that holds the row of a member's result; None where its size is not known, or too large."""
        own = self._row_axes(member)
        shape = [size for axis, size in enumerate(member.type.shape) if axis not in own]
        total = TensorType(member.type.dtype, tuple(shape))
        if not isinstance(total.elements, int) or total.elements * total.dtype.itemsize > _LOCAL_BYTES:
            return None
        return Local(self.naming.names.fresh(f"{member.form.store.buffer}_row"), total)

    def _held(self) -> Member | None:
        """The member whose result can lie where the last one's will: that reads it only at the place of its own."""
        last = self.members[-1]
        if last.is_scalar or last.places is None:
            return None
        for member in reversed(self.members[:-1]):
            if member.out not in self.internal or member.is_scalar or member.places is None:
                continue
            same = (member.type, self._row_axes(member)) == (last.type, self._row_axes(last))
            own = last.form.loads(member.form.store.buffer)
            is_costly = not self._is_inlined(member, member.form.store)
            if same and is_costly and all(load.index == last.form.store.index for load in own):
                return member
        return None


def _by_lane(store: Store, var: str) -> bool:
    """Whether a loop stores side by side what is read at places that are known."""
    loads = [e for e in walk(store.value) if isinstance(e, Load)]
    is_known = all(e.outside is None and all(isinstance(i, Index) for i in e.index) for e in loads)
    return is_known and store.index[-1] == Index(t.i64, symbol(var))


def _inlined(member: Member, store: Store) -> Callable[[Load], Expr]:
    """What takes the place of a load of an array: its element at that place."""
    places = member.places
    assert places is not None

    def at(load: Load) -> Expr:
        mapping: dict[str, Size] = {}
        for var, axis in places.items():
            index = load.index[axis]
            assert isinstance(index, Index)
            mapping[var] = index.value
        return _substituted(store.value, mapping)

    return at


def _substituted(value: Expr, mapping: Mapping[str, Size]) -> Expr:
    def one(expr: Expr) -> Expr | None:
        return Index(t.i64, substitute(expr.value, mapping)) if isinstance(expr, Index) else None

    return transform(value, one)


def _cost(value: Expr) -> int:
    """About how much arithmetic a value is."""
    functions = [e.function for e in walk(value) if isinstance(e, Apply) and e.dtype != t.i64]
    narrow = [e for e in walk(value) if isinstance(e, Cast) and e.value.dtype.is_float and e.value.dtype.bits < 32]
    return sum(8 if function in COSTLY else 1 for function in functions) + 8 * len(narrow)
