"""The verifier: good graphs, kernels and programs pass, and each kind of damage is named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ir.ops  # noqa: F401
from ir import types as t
from ir.blob import ArrayBlob
from ir.build import Builder
from ir.dims import symbol
from ir.expr import Apply, Const, Index, Load, Reduce, Var, const, loop_var
from ir.graph import Graph
from ir.kernel import Buffer, For, Kernel, Let, Store
from ir.op import OPS
from ir.parse import parse_kernel
from ir.program import Branch, Call, Program, ProgramBuffer, Slot
from ir.types import tensor
from ir.verify import VerifyError, sizes_agree, verify_graph, verify_kernel, verify_program

N, M, A, B = symbol("N"), symbol("M"), symbol("A"), symbol("B")


def small_graph() -> Graph:
    graph = Graph("g")
    x = graph.add_input("x", tensor("f32", N, 4))
    b = Builder(graph, sources=("node1",))
    y = b.relu(b.add(x, x))
    graph.set_outputs([y])
    return graph


def nodes(graph: Graph) -> list:
    return list(graph.nodes())


def foreign_operand(graph: Graph) -> None:
    other = Graph("other").add_input("z", tensor("f32", N, 4))
    nodes(graph)[1].inputs[0] = other


def swapped(graph: Graph) -> None:
    first, second = nodes(graph)
    graph.move_before(second, first)


def forgotten_use(graph: Graph) -> None:
    graph.inputs[0].users.clear()


def wrong_count_of_uses(graph: Graph) -> None:
    graph.inputs[0].users[nodes(graph)[0]] = 1


def wrong_type(graph: Graph) -> None:
    nodes(graph)[0].output.type = tensor("f32", N, 5)


def refused(graph: Graph) -> None:
    nodes(graph)[0].inputs[1] = None
    graph.inputs[0].users[nodes(graph)[0]] = 1


def twice_named(graph: Graph) -> None:
    nodes(graph)[1].output.name = "x"


def lost_output(graph: Graph) -> None:
    graph.outputs = [Graph("other").add_input("z", tensor("f32"))]


def unnamed_output(graph: Graph) -> None:
    graph.output_names = []


def outputs_of_one_name(graph: Graph) -> None:
    graph.set_outputs([*graph.outputs, *graph.inputs], ["y", "y"])


def broken_list(graph: Graph) -> None:
    nodes(graph)[1].previous = None


def wrong_length(graph: Graph) -> None:
    graph._count = 7


def nested(graph: Graph) -> None:
    body = small_graph()
    wrong_type(body)
    graph.insert(OPS["fused"](body=body), [graph.inputs[0]], [tensor("f32", N, 4)])  # type: ignore[call-arg]


class TestGraphs:
    def test_a_sound_graph_passes(self) -> None:
        verify_graph(small_graph())
        verify_graph(Graph("empty"))

    @pytest.mark.parametrize(
        ("damage", "problem"),
        [
            (foreign_operand, "%1 = relu %z.*from node1.*operand %z belongs to another graph"),
            (swapped, "operand %0 is used before it is defined"),
            (forgotten_use, "%x lists as users: nothing; it is used by: %0 = add"),
            (wrong_count_of_uses, "%x lists as users"),
            (wrong_type, r"%0 is f32\[N,5\], the type rule gives f32\[N,4\]"),
            (refused, "%0 = add %x, _.*the type rule refuses"),
            (twice_named, "the name %x is given to 2 values"),
            (lost_output, "output '1' is %z, which nothing in the graph defines"),
            (unnamed_output, "1 outputs have 0 names"),
            (outputs_of_one_name, "2 outputs are called 'y'"),
            (broken_list, "the list of nodes is broken here"),
            (wrong_length, "counts 7 nodes and has 2"),
            (nested, r"in its body: .*%0 is f32\[N,5\]"),
        ],
    )
    def test_damage_is_named(self, damage: Callable[[Graph], None], problem: str) -> None:
        graph = small_graph()
        damage(graph)
        with pytest.raises(VerifyError, match=problem):
            verify_graph(graph)

    def test_all_problems_are_reported(self) -> None:
        graph = small_graph()
        wrong_type(graph)
        forgotten_use(graph)
        with pytest.raises(VerifyError) as caught:
            verify_graph(graph)
        assert len(caught.value.problems) >= 2

    def test_types_may_differ_by_what_the_graph_assumes_to_be_equal(self) -> None:
        graph = small_graph()
        nodes(graph)[0].output.type = tensor("f32", M, 4)
        with pytest.raises(VerifyError):
            verify_graph(graph)
        graph.equal_dims.append((M, N))
        verify_graph(graph)

    @pytest.mark.parametrize(
        ("a", "b", "equal", "agree"),
        [
            (A + 1, B + 1, [(A, B)], True),
            (A, 4, [(B, 4), (A, B)], True),
            (A * 2, B, [(B, A + A)], True),
            (A + 1, B, [(A * B, B * B)], False),
            (A + B, N + M, [(A + B, N + M)], True),
            (A, B, [], False),
            (A, A + N, [(A, A + N)], True),
        ],
    )
    def test_sizes_agree_under_equalities(self, a: t.Size, b: t.Size, equal: list, agree: bool) -> None:
        assert sizes_agree(a, b, {}, equal) == agree


def kernel_of(body: str, params: str = "in x: f32[N,4], const q: i8[4], inout y: f32[N]") -> Kernel:
    return parse_kernel(f"kernel @k({params}) {{ {body} }}")


class TestKernels:
    @pytest.mark.parametrize(
        "body",
        [
            "for n in 0..N, i in 0..4 { y[n] = x[n, 3 - i] }",
            "for n in 0..N { if n + 1 < N { y[n + 1] = 0.0 } }",
            "for n in 0..N { y[n] = select(n >= 1, x[n - 1, 0], 0.0) }",
            "for n in 0..N { y[n] = (x[n - 1, 5] or 0.0) }",
            "for n in 0..N { if (n >= 1) & (x[n - 1, 0] > 0.0) { y[n] = 1.0 } }",
            "for i in 0..0 { y[i] = x[i - 1, 9] }",
            "for p in 0..1, r in 0..-p { y[r + p + 1] = x[0, r + p + 4] }",
            "for i in 0..4, j in 0..i { y[j] = x[0, i - j - 1] }",
            "for o in 0..(N+3)//4, i in 0..4 { if 4*o + i < N { y[4*o + i] = 0.0 } }",
            "let a: f32 = 1.0 for n in 0..N { var b: f32 = a b += a y[n] = b }",
            "for n in 0..N { let a: f32 = 1.0 y[n] = a } for n in 0..N { let a: f32 = 2.0 y[n] = a }",
            "local z: i32[4] for i in 0..4 { z[i] = 1:i32 } for n in 0..N { y[n] = f32(z[n%4]) }",
            "for n in 0..N { y[n] = max over (k in 0..4, j in 0..2) { x[n, k] * f32(j) } }",
            "for n in 0..N { let j: i64 = i64(q[0]) y[n] = x[n, j] }",
        ],
    )
    def test_sound_kernels_pass(self, body: str) -> None:
        verify_kernel(kernel_of(body))

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ("y[n] = 0.0 for n in 0..N { y[n] = 1.0 }", "the loop variable n is used outside of its loop"),
            ("for n in 0..N, n in 0..4 { y[n] = 1.0 }", "the name n is taken"),
            ("for N in 0..4 { y[N] = 1.0 }", "the name N is taken"),
            ("let x: f32 = 1.0", "the name x is taken"),
            ("let a: f32 = 1.0 let a: f32 = 2.0", "the name a is taken"),
            ("y[0] = add over (N in 0..4) { 1.0 }", "the name N is taken"),
            ("for n in 0..N { y[n, 0] = 0.0 }", r"2 indices into y: f32\[N\]"),
            ("for n in 0..N { y[n] = x[n] }", r"1 indices into x"),
            ("for n in 0..N { y[n] = x[n, 1.0] }", "an index into x is f32"),
            ("for n in 0..N { y[n] = q[0] }", r"y is f32\[N\], the value is i8"),
            ("for n in 0..N { y[n] = x[n, 0] + q[0] }", "add of f32 and i8"),
            ("for n in 0..N { y[n] = x[n, 0] + 1 }", "add of f32 and i64"),
            ("for n in 0..N { y[n] = (x[n, 0] or 0) }", "outside of it is i64"),
            ("x[0, 0] = 1.0", "x is an in parameter"),
            ("q[0] = 1:i8", "q is an const parameter"),
            ("z[0] = 1.0", "z is not a buffer"),
            ("a = 1.0", "a is not a variable"),
            ("let a: f32 = 1.0 a = 2.0", "a is not a variable"),
            ("var a: f32 = 1.0 a += 1", "a is f32, the value is i64"),
            ("if 1.0 { }", "the condition is f32"),
            ("while 1 { }", "the condition is i64"),
            ("for n in 0..x[0, 0] { }", "the extent is f32"),
            ("local z: f32[N]", "the local z has a symbolic shape"),
            ("let a: f32 = select(1.0, 1.0, 2.0)", "the condition is f32"),
            ("let a: f32 = pow over (i in 0..4) { 1.0 }", "no reduction by pow"),
            ("let a: i8 = 200:i8", "200 does not fit i8"),
            ("let a: u8 = -1:u8", "-1 does not fit u8"),
            ("for n in 0..N { y[n + 1] = 0.0 }", r"goes up to N, outside of axis 0 of y"),
            ("for n in 0..N { y[N - n] = 0.0 }", "goes up to N, outside of axis 0"),
            ("for n in 0..N, i in 0..4 { y[n] = x[n, i - 1] }", "goes down to -1, outside of axis 1"),
            ("for n in 0..N, i in 0..4 { y[n] = x[n, 2*i] }", "goes up to 6, outside of axis 1"),
            ("for n in 0..N { y[n] = x[n, 4] }", "always outside of axis 1 of x"),
            ("for n in 0..N { y[n] = add over (k in 0..5) { x[n, k] } }", "goes up to 4"),
            ("for n in 0..N { if n > 0 { y[n, 0] = 0.0 } }", "2 indices into y"),
        ],
    )
    def test_damage_is_named(self, body: str, problem: str) -> None:
        with pytest.raises(VerifyError, match=problem) as caught:
            verify_kernel(kernel_of(body))
        assert "`" in caught.value.problems[0]

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ((Let("a", Var(t.f32, "b")),), "b is not defined here"),
            ((Let("a", const(1, t.f32)), Let("b", Var(t.i8, "a"))), "a is f32, used as i8"),
            ((Let("a", Load(t.f16, "x", (loop_var("M"),))),), "x is f32.*loaded as f16"),
            ((Let("a", Apply(t.f32, "lt", (const(1, t.f32), const(2, t.f32)))),), "lt gives bool, not f32"),
            ((Let("a", Apply(t.f32, "exp", ())),), "no function exp of 0 arguments"),
            ((Let("a", Const(t.f32, 1)),), "the literal 1 is not a f32"),
            ((Let("a", Const(t.i8, True)),), "the literal True is not a i8"),
            ((Let("a", Reduce(t.f32, "add", (("k", 3),), const(1, t.i32))),), "the reduction is f32, its body i32"),
            ((For("i", 3, (), "fast"),), "there is no mark 'fast'"),  # type: ignore[arg-type]
            ((Let("a", const(1, t.f32)), Let("b", Index(t.i64, symbol("a") + 1))), "a is not a size"),
            ((Store("x", (Index(t.i64, 0),), const(1, t.f32), "exp"),), "no update by exp"),
        ],
    )
    def test_what_text_cannot_say_is_checked_too(self, body: tuple, problem: str) -> None:
        with pytest.raises(VerifyError, match=problem):
            verify_kernel(Kernel("k", (Buffer("x", tensor("f32", M), "inout"),), body))


COPY = parse_kernel("kernel @copy(in x: f32[N], out y: f32[N]) { for i in 0..N { y[i] = x[i] } }")
TWICE = parse_kernel("kernel @twice(inout y: f32[N]) { for i in 0..N { y[i] += y[i] } }")


def chain() -> Program:
    """a -> t0 -> t1 -> b; t0 and t1 are in use at the same time."""
    program = Program("p", ["a"], ["b"], ["a"], ["b"], bounds={"M": (1, None)})
    places = {"a": "input", "t0": "arena", "t1": "arena", "b": "output"}
    for name, place in places.items():
        program.buffers[name] = ProgramBuffer(name, tensor("f32", 16 * M), place)  # type: ignore[arg-type]
    program.slots = [Slot(64 * M), Slot(64 * M)]
    program.buffers["t0"].slot, program.buffers["t1"].slot = 0, 1
    program.steps = [Call(COPY, pair, (16 * M,), ("n",)) for pair in (("a", "t0"), ("t0", "t1"), ("t1", "b"))]
    return program


def share_slot(p: Program) -> None:
    p.buffers["t1"].slot = 0


def half_overlap(p: Program) -> None:
    p.slots = [Slot(128 * M)]
    p.buffers["t1"].slot, p.buffers["t1"].offset = 0, 64


def small_slot(p: Program) -> None:
    p.slots[0].bytes = 64 * M - 64


def unaligned_slot(p: Program) -> None:
    p.slots[0].bytes = 64 * M + 4


def no_slot(p: Program) -> None:
    p.buffers["t0"].slot = 5


def wrong_size(p: Program) -> None:
    p.steps[1] = Call(COPY, ("t0", "t1"), (16 * M + 1,), ("n",))


def wrong_dtype(p: Program) -> None:
    p.buffers["t0"].type = tensor("i32", 16 * M)


def missing_argument(p: Program) -> None:
    p.steps[1] = Call(COPY, ("t0",), (16 * M,))


def missing_size(p: Program) -> None:
    p.steps[1] = Call(COPY, ("t0", "t1"), ())


def unknown_buffer(p: Program) -> None:
    p.steps[1] = Call(COPY, ("t0", "zzz"), (16 * M,))


def written_input(p: Program) -> None:
    p.steps[1] = Call(COPY, ("t0", "a"), (16 * M,))


def unwritten(p: Program) -> None:
    del p.steps[0]


def silent_output(p: Program) -> None:
    del p.steps[2]


def aliased(p: Program) -> None:
    p.steps[1] = Call(COPY, ("t0", "t0"), (16 * M,))


def large_view(p: Program) -> None:
    p.buffers["v"] = ProgramBuffer("v", tensor("f32", 32 * M), "view", base="t0")


def view_of_nothing(p: Program) -> None:
    p.buffers["v"] = ProgramBuffer("v", tensor("f32", M), "view", base="zzz")


def view_of_itself(p: Program) -> None:
    p.buffers["v"] = ProgramBuffer("v", tensor("f32", M), "view", base="v")


def weight_without_blob(p: Program) -> None:
    p.buffers["w"] = ProgramBuffer("w", tensor("f32", 3), "weight")


def weight_of_other_type(p: Program) -> None:
    p.buffers["w"] = ProgramBuffer("w", tensor("f32", 3), "weight", ArrayBlob(np.zeros(4, np.float32)))


def branch_on_floats(p: Program) -> None:
    p.steps.append(Branch("b", (), ()))


def written_on_one_way_only(p: Program) -> None:
    p.buffers["c"] = ProgramBuffer("c", tensor("bool"), "input")
    p.inputs.append("c")
    p.input_names.append("c")
    p.steps[0] = Branch("c", (p.steps[0],), ())


def bad_kernel(p: Program) -> None:
    bad = parse_kernel("kernel @bad(in x: f32[N], out y: f32[N]) { for i in 0..N { y[i + 1] = x[i] } }")
    p.steps[1] = Call(bad, ("t0", "t1"), (16 * M,))


def two_kernels_of_one_name(p: Program) -> None:
    other = Kernel("copy", COPY.params, ())
    p.steps[1] = Call(other, ("t0", "t1"), (16 * M,))


class TestPrograms:
    def test_sound_programs_pass(self) -> None:
        verify_program(chain())
        program = chain()
        program.buffers["t1"].place, program.buffers["t1"].base = "view", "t0"
        program.steps[1] = Call(TWICE, ("t1",), (16 * M,))
        verify_program(program)

    def test_buffers_that_are_not_in_use_together_may_share_bytes(self) -> None:
        program = chain()
        program.buffers["t2"] = ProgramBuffer("t2", tensor("f32", 16 * M), "arena", slot=0)
        program.steps[2:] = [Call(COPY, pair, (16 * M,)) for pair in (("t1", "t2"), ("t2", "b"))]
        verify_program(program)

    def test_a_flat_parameter_takes_any_shape_of_as_many_elements(self) -> None:
        program = chain()
        program.buffers["t0"].type = tensor("f32", 2, 8 * M)
        verify_program(program)

    def test_before_memory_is_planned_nothing_is_said_about_slots(self) -> None:
        program = chain()
        program.slots = []
        for name in ("t0", "t1"):
            program.buffers[name].slot = -1
        verify_program(program)

    @pytest.mark.parametrize(
        ("damage", "problem"),
        [
            (share_slot, "t0 and t1 are in use at the same time and share bytes of slot 0"),
            (half_overlap, "share bytes of slot 0"),
            (small_slot, "does not fit slot 0"),
            (unaligned_slot, "slot 0 has .* bytes, not a multiple of 64"),
            (no_slot, "t0 lies in slot 5 of 2"),
            (wrong_size, r"copy\(t0, t1\) \(from n\): parameter x is f32\[16\*M\+1\], t0 is f32\[16\*M\]"),
            (wrong_dtype, r"parameter y is f32\[16\*M\], t0 is i32"),
            (missing_argument, "1 arguments for 2 parameters"),
            (missing_size, "0 sizes for 1"),
            (unknown_buffer, "zzz is not a buffer"),
            (written_input, "a is in input memory"),
            (unwritten, "t0 is read before it is written"),
            (silent_output, "output b is never written"),
            (aliased, "another argument is the same memory"),
            (large_view, "is larger than t0"),
            (view_of_nothing, "view v is of zzz"),
            (view_of_itself, "view v is a view of itself"),
            (weight_without_blob, "weight w has no blob"),
            (weight_of_other_type, r"weight w is f32\[3\], its blob f32\[4\]"),
            (branch_on_floats, "not one bool"),
            (written_on_one_way_only, "t0 is read before it is written"),
            (bad_kernel, "kernel bad: .*goes up to N"),
            (two_kernels_of_one_name, "two kernels are called copy"),
        ],
    )
    def test_damage_is_named(self, damage: Callable[[Program], None], problem: str) -> None:
        program = chain()
        damage(program)
        with pytest.raises(VerifyError, match=problem):
            verify_program(program)
