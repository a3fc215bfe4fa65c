"""The reference backend: graphs by name, kernels by element, programs on one arena, and sizes solved from shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ir.ops  # noqa: F401
from backends.reference import ReferenceBackend, compile_kernel, run_graph, run_kernel, run_program
from compiler.artifact import Artifact
from compiler.errors import CompileError, ModelError, UsageError
from ir import types as t
from ir.bind import bind_sizes
from ir.blob import ArrayBlob
from ir.build import Builder
from ir.dims import Size, evaluate, maximum, minimum, names, symbol
from ir.evaluate import EvaluationError, evaluate_graph, materialise
from ir.expr import Apply, Expr, Load, Var, const, loop_var, select
from ir.functions import FUNCTIONS
from ir.graph import Graph
from ir.kernel import Buffer, For, Kernel, Let, Store
from ir.op import OPS, Op
from ir.parse import parse_graph, parse_kernel
from ir.program import Branch, Call, Program, ProgramBuffer, Slot
from ir.types import DTYPES, TensorType, tensor

N, M, H = symbol("N"), symbol("M"), symbol("H")


class TestSizes:
    """Symbols are solved from the shapes of arrays."""

    @pytest.mark.parametrize(
        ("types", "shapes", "found"),
        [
            ([tensor("f32", N, 3)], [(5, 3)], {"N": 5}),
            ([tensor("f32", N + M, 2 * N)], [(7, 6)], {"N": 3, "M": 4}),
            ([tensor("f32", N * M), tensor("f32", M)], [(12,), (4,)], {"N": 3, "M": 4}),
            ([tensor("f32", (H + 1) // 2, H)], [(4, 8)], {"H": 8}),
            ([tensor("f32")], [()], {}),
            ([tensor("f32", 3 * N - 2)], [(7,)], {"N": 3}),
        ],
    )
    def test_solved(self, types: list[TensorType], shapes: list[tuple[int, ...]], found: dict[str, int]) -> None:
        assert bind_sizes(types, [np.zeros(shape) for shape in shapes]) == found

    @pytest.mark.parametrize(
        ("type_", "shape", "reason"),
        [
            (tensor("f32", 2 * N), (3,), r"x: axis 0 is 3, which 2\*N cannot be"),
            (tensor("f32", N + 2), (1,), "x: axis 0 is 1, which N.2 cannot be"),
            (tensor("f32", N, N), (3, 4), r"x: axis 1 is 4, it must be 3 \(N\)"),
            (tensor("f32", N, N // 2), (3, 4), r"x: axis 1 is 4, it must be 1 \(N//2\)"),
            (tensor("f32", 3), (4,), "x: axis 0 is 4, it must be 3"),
            (tensor("f32", N), (4, 1), r"x: f32\[N\] has 1 axes, the array has shape \[4, 1\]"),
            (tensor("f32", N // 2), (4,), "do not tell the size N"),
        ],
    )
    def test_contradictions_name_the_input_and_both_sizes(
        self, type_: TensorType, shape: tuple[int, ...], reason: str
    ) -> None:
        with pytest.raises(ValueError, match=reason):
            bind_sizes([type_], [np.zeros(shape)], ["x"])

    def test_given_sizes_fill_in_and_shapes_win(self) -> None:
        types = [tensor("f32", N), tensor("f32", H // 2)]
        assert bind_sizes(types, [np.zeros(2), np.zeros(3)], (), {"H": 7, "N": 9}) == {"N": 2, "H": 7}

    def test_attributes_are_materialised_in_nested_tuples(self) -> None:
        made = materialise(OPS["dims"](values=(N, 2 * N + 1)), {"N": 3})  # type: ignore[call-arg]
        assert made.attributes() == {"values": (3, 7)}


GRAPH = """graph @g(%x: f32[N,4], %y: f32[M,4]) -> (f32[N,4], i64[2]) where 1 <= N <= 8, N == M {
  %c: f32[4]   = const [1.0, 2.0, 3.0, 4.0]
  %0: f32[N,4] = add %x, %c    loc("first")
  %1: f32[N,4] = mul %0, %y    loc("second", "third")
  %2: i64[2]   = dims {values=[N,2*N+1]}
  return %1 as "out", %2 as "sizes"
}"""


def rows(count: int) -> np.ndarray:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


class TestGraphs:
    def test_outputs_by_name_and_every_value_with_keep(self) -> None:
        graph = parse_graph(GRAPH)
        found = run_graph(graph, {"x": rows(2), "y": rows(2)})
        assert list(found) == ["out", "sizes"]
        np.testing.assert_array_equal(found["out"], (rows(2) + np.array([1, 2, 3, 4])) * rows(2))
        assert found["sizes"].tolist() == [2, 5]
        assert list(run_graph(graph, {"x": rows(2), "y": rows(2)}, keep=True)) == ["x", "y", "c", "0", "1", "2"]

    @pytest.mark.parametrize(
        ("feeds", "reason"),
        [
            ({"x": rows(2)}, "no feed for input 'y'"),
            ({"x": rows(2), "y": rows(2), "z": rows(2)}, "no input 'z'; it has 'x', 'y'"),
            ({"x": rows(2), "y": rows(2).astype(np.float64)}, r"input 'y' is float64, it must be f32\[M,4\]"),
            ({"x": rows(2), "y": rows(3)}, "N is 2 and M is 3; they must be equal"),
            ({"x": rows(9), "y": rows(9)}, "the size N is 9, it must be 1 to 8"),
            ({"x": rows(2).T, "y": rows(2)}, "x: axis 1 is 2, it must be 4"),
        ],
    )
    def test_feeds_that_do_not_fit(self, feeds: dict[str, np.ndarray], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            run_graph(parse_graph(GRAPH), feeds)

    def test_a_failing_node_names_the_nodes_it_came_from(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: Op, *operands: np.ndarray) -> np.ndarray:
            raise ArithmeticError("no such sum")

        graph = parse_graph(GRAPH)
        monkeypatch.setattr(OPS["mul"], "reference", fail)
        with pytest.raises(EvaluationError, match=r"%1 = mul %0, %y \(from second, third\) on .*2, 4.*no such sum"):
            run_graph(graph, {"x": rows(2), "y": rows(2)})

    def test_a_reference_that_breaks_its_type_rule_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        graph = parse_graph(GRAPH)
        monkeypatch.setattr(OPS["mul"], "reference", lambda self, a, b: (a * b).astype(np.float64))
        with pytest.raises(EvaluationError, match=r"%1 is f32\[N,4\], the reference gave float64"):
            run_graph(graph, {"x": rows(2), "y": rows(2)})

    def test_intermediates_are_freed_when_dead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import weakref

        graph = Graph("g")
        b = Builder(graph)
        x = b.relu(b.relu(b.relu(graph.add_input("x", tensor("f32", 4)))))
        graph.set_outputs([x])
        alive: list[weakref.ref[np.ndarray]] = []
        most = 0

        def relu(self: Op, x: np.ndarray) -> np.ndarray:
            nonlocal most
            made = np.maximum(x, 0)
            alive.append(weakref.ref(made))
            most = max(most, sum(ref() is not None for ref in alive))
            return made

        monkeypatch.setattr(OPS["relu"], "reference", relu)
        evaluate_graph(graph, [np.ones(4, np.float32)])
        assert most == 2

    def test_nested_graphs_know_the_sizes_around_them(self) -> None:
        body = Graph("body")
        inner = body.add_input("a", tensor("f32", H))
        body.set_outputs([Builder(body).add(inner, Builder(body).full(shape=(N,), value=2.0))])
        body.equal_dims = []
        graph = Graph("g")
        x = graph.add_input("x", tensor("f32", N))
        graph.set_outputs([Builder(graph).fused(x, body=body)])
        graph.outputs[0].type = tensor("f32", N)
        found = run_graph(graph, {"x": np.ones(3, np.float32)})
        assert next(iter(found.values())).tolist() == [3, 3, 3]


def apply_kernel(name: str, dtype: t.DType, arity: int, out: t.DType) -> Kernel:
    """y[i] = name(x0[i], ...)"""
    i = loop_var("i")
    kinds = [t.bool_ if name == "select" and k == 0 else dtype for k in range(arity)]
    value = Apply(out, name, tuple(Load(kind, f"x{k}", (i,)) for k, kind in enumerate(kinds)))
    params = [Buffer(f"x{k}", tensor(kind, N)) for k, kind in enumerate(kinds)]
    return Kernel(name, (*params, Buffer("y", tensor(out, N), "out")), (For("i", N, (Store("y", (i,), value),)),))


INTERESTING = {
    "float": [0.0, -0.0, 1.0, -1.5, 2.5, 0.3, 100.0, np.inf, -np.inf, np.nan],
    "int": [0, 1, -1, 7, -8, 100, 127, -128, 3, 5],
    "uint": [0, 1, 2, 7, 8, 100, 255, 128, 3, 5],
    "bool": [True, False, True, True, False, False, True, False, True, False],
}


class TestKernels:
    @pytest.mark.parametrize("dtype", [t.f32, t.f64, t.f16, t.bf16, t.i8, t.u8, t.i32, t.i64, t.u64, t.bool_], ids=str)
    def test_every_function_means_what_numpy_means_by_it(self, dtype: t.DType) -> None:
        values = np.array(INTERESTING[dtype.kind]).astype(dtype.numpy)
        rng = np.random.default_rng(0)
        compared = set()
        for name, entry in FUNCTIONS.items():
            columns = [rng.permutation(values) for _ in range(entry.arity)]
            if name == "select":
                columns[0] = columns[0] == values[0]
            try:
                with np.errstate(all="ignore"):
                    expected = np.asarray(entry.numpy(*columns))
            except TypeError:  # NumPy has no such function of this type
                continue
            if expected.dtype.kind == "f" and not dtype.is_float:  # exp and the like are for floats
                continue
            out = t.bool_ if entry.is_predicate else dtype
            got = np.zeros(len(values), out.numpy)
            run_kernel(
                apply_kernel(name, dtype, entry.arity, out), {f"x{k}": c for k, c in enumerate(columns)} | {"y": got}
            )
            expected = expected.astype(out.numpy)
            if dtype == t.bf16:  # in which NumPy does not find NaN equal to NaN
                got, expected = got.astype(np.float32), expected.astype(np.float32)
            np.testing.assert_array_equal(got, expected, err_msg=name)
            compared.add(name)
        assert compared >= ({"exp", "select", "max"} if dtype.is_float else {"select", "max"})

    def test_integers_wrap_around(self) -> None:
        kernel = parse_kernel("kernel @k(in x: i8[N], out y: i8[N]) { for i in 0..N { y[i] = x[i] * 3:i8 + 100:i8 } }")
        x, y = np.arange(-128, 128, dtype=np.int8), np.zeros(256, np.int8)
        run_kernel(kernel, {"x": x, "y": y})
        np.testing.assert_array_equal(y, (x.astype(int) * 3 + 100).astype(np.int8))

    @pytest.mark.parametrize("source", [d for d in DTYPES.values() if d.kind != "string"], ids=str)
    def test_casts_are_those_of_the_cast_op(self, source: t.DType) -> None:
        kind = "float" if source.kind == "complex" else source.kind
        x = np.array([v for v in INTERESTING[kind] if kind != "int" or -2 <= v < 2]).astype(source.numpy)
        for target in DTYPES.values():
            if target.kind == "string" or (source.kind == "complex") != (target.kind == "complex"):
                continue
            for saturate in (True, False):
                text = f"{target}(x[i]{'' if saturate else ', saturate=false'})"
                kernel = parse_kernel(
                    f"kernel @k(in x: {source}[N], out y: {target}[N]) {{ for i in 0..N {{ y[i] = {text} }} }}"
                )
                y = np.zeros(len(x), target.numpy)
                run_kernel(kernel, {"x": x, "y": y})
                expected = OPS["cast"](to=target, saturate=saturate).reference(x)  # type: ignore[call-arg]
                np.testing.assert_array_equal(y.view(np.uint8), np.asarray(expected).view(np.uint8), err_msg=text)

    @pytest.mark.parametrize("index", ["i + 1", "i - 1", "c[i]"])
    @pytest.mark.parametrize("store", [True, False])
    def test_accesses_outside_raise(self, index: str, store: bool) -> None:
        line = f"y[{index}] = x[i]" if store else f"y[i] = x[{index}]"
        kernel = parse_kernel(f"kernel @k(in x: f32[N], in c: u8[N], out y: f32[N]) {{ for i in 0..N {{ {line} }} }}")
        feeds = {"x": np.ones(3, np.float32), "c": np.array([0, 200, 1], np.uint8), "y": np.ones(3, np.float32)}
        with pytest.raises(IndexError, match=r"lies outside of its shape \[3\]"):
            run_kernel(kernel, feeds)

    def test_what_is_not_taken_is_not_evaluated(self) -> None:
        kernel = parse_kernel("""kernel @k(in x: f32[N], out y: f32[N]) {
          for i in 0..N {
            y[i] = select(i > 0, x[i - 1], 0.0) + (x[i + 1] or x[0])
            if (i < N - 1) & (x[i + 1] > 1.0) { y[i] += 100.0 }
          }
        }""")
        x, y = np.array([1, 2, 3], np.float32), np.zeros(3, np.float32)
        run_kernel(kernel, {"x": x, "y": y})
        assert y.tolist() == [102, 104, 3]

    def test_statements(self) -> None:
        kernel = parse_kernel("""kernel @k(in x: f32[N], in count: i64[1], inout y: f32[N], out z: i32[3]) {
          local t: f32[4]
          for i in 0..4 { t[i] = (x[i] or -inf) }
          var best: f32 = -inf
          for i in 0..count[0] { best max= t[i] }
          var left: i64 = 3:i64
          while left > 0 { left -= 1 z[left] = i32(left) }
          for i in 0..N {
            if x[i] == best { y[i] = best }
            else if x[i] > 2.0 { y[i] += 10.0 }
            else { y[i] = add over (k in 0..4, j in 0..2) { t[k] * f32(j) } }
          }
        }""")
        x, y, z = np.array([1, 3, 2, 5], np.float32), np.ones(4, np.float32), np.zeros(3, np.int32)
        run_kernel(kernel, {"x": x, "y": y, "z": z, "count": np.array([2])})
        assert y.tolist() == [11, 3, 11, 11]
        assert z.tolist() == [0, 1, 2]

    def test_uninitialised_memory_is_garbage_not_zero(self) -> None:
        kernel = parse_kernel("kernel @k(out y: i32[4]) { local t: i32[4] for i in 0..4 { y[i] = t[i] } }")
        y = np.zeros(4, np.int32)
        run_kernel(kernel, {"y": y})
        assert y.all()

    def test_reductions_start_from_their_identity(self) -> None:
        for function, dtype, expected in (("add", "f32", 0), ("mul", "f32", 1), ("max", "i8", -128), ("min", "u8", 255),
                                          ("or", "bool", False), ("and", "bool", True)):  # fmt: skip
            text = f"kernel @k(in x: {dtype}[N], out y: {dtype}[]) {{ y[] = {function} over (i in 0..N) {{ x[i] }} }}"
            y = np.ones((), DTYPES[dtype].numpy)
            run_kernel(parse_kernel(text), {"x": np.zeros(0, DTYPES[dtype].numpy), "y": y})
            assert y == expected

    def test_a_shared_part_is_computed_once(self) -> None:
        value: Expr = Var(t.f32, "v")
        lazy: Expr = Var(t.f32, "v")
        for _ in range(200):
            value = Apply(t.f32, "mul", (value + value, const(0.5, t.f32)))
            lazy = select(Apply(t.bool_, "gt", (lazy, const(0, t.f32))), lazy * 1.0, lazy)
        kernel = Kernel(
            "k",
            (Buffer("y", tensor("f32", 2), "out"),),
            (Let("v", const(3, t.f32)), Store("y", (loop_var("N") - 1,), value), Store("y", (loop_var("N"),), lazy)),
        )
        y = np.zeros(2, np.float32)
        run_kernel(kernel, {"y": y}, {"N": 1})
        assert y.tolist() == [3, 3]

    def test_buffers_that_do_not_fit(self) -> None:
        kernel = parse_kernel("kernel @k(in x: f32[N], out y: f32[N,M]) { for i in 0..N { y[i, K] = x[i] } }")
        x, y = np.ones(2, np.float32), np.ones((2, 3), np.float32)
        with pytest.raises(ValueError, match="x is float64"):
            run_kernel(kernel, {"x": x.astype(float), "y": y}, {"K": 0})
        with pytest.raises(ValueError, match="must be contiguous"):
            run_kernel(kernel, {"x": x, "y": np.ones((3, 2), np.float32).T}, {"K": 0})
        with pytest.raises(ValueError, match="no value for the size K"):
            run_kernel(kernel, {"x": x, "y": y})

    @given(st.integers(0, 9), st.integers(1, 9))
    def test_index_arithmetic_is_exact(self, n: int, m: int) -> None:
        sizes: list[Size] = [
            (N * N - N) // 2, (N * N + N) / 2, N % M, (N + 7) // M - N, minimum(N, M, 3), maximum(N - M, M - N),
            -(N // M) + N**3,
        ]  # fmt: skip
        stores = tuple(
            Store("y", (const(k, t.i64),), Apply(t.i64, "add", (const(0, t.i64), size_expr(size))))
            for k, size in enumerate(sizes)
        )
        y = np.zeros(len(sizes), np.int64)
        run_kernel(Kernel("k", (Buffer("y", tensor("i64", len(sizes)), "out"),), stores), {"y": y}, {"N": n, "M": m})
        assert y.tolist() == [evaluate(size, {"N": n, "M": m}) for size in sizes]
        assert all(names(size) for size in sizes)


def size_expr(size: Size) -> Expr:
    from ir.expr import Index

    return Index(t.i64, size)


ADD1 = parse_kernel("kernel @add1(in x: f32[N], out y: f32[N]) { for i in 0..N { y[i] = x[i] + 1.0 } }")
SUM = parse_kernel("kernel @sum(in x: f32[N], in z: f32[N], out y: f32[N]) { for i in 0..N { y[i] = x[i] + z[i] } }")


def diamond(slot: int, offset: Size = 0) -> Program:
    """b = (a + 1) + ((a + 1) + 1), with the second intermediate in `slot` at `offset`."""
    program = Program("p", ["a"], ["b"], ["in"], ["out"], slots=[Slot(64 * N), Slot(64 * N)])
    for name, place in (("a", "input"), ("t0", "arena"), ("t1", "arena"), ("b", "output")):
        program.buffers[name] = ProgramBuffer(name, tensor("f32", N), place, slot=0)  # type: ignore[arg-type]
    program.buffers["t1"].slot = slot
    calls = [(ADD1, ("a", "t0")), (ADD1, ("t0", "t1")), (SUM, ("t0", "t1", "b"))]
    program.steps = [Call(kernel, args, (N,)) for kernel, args in calls]
    return program


class TestPrograms:
    def test_kernels_run_on_planned_memory(self) -> None:
        a = np.arange(5, dtype=np.float32)
        assert run_program(diamond(1), {"in": a})["out"].tolist() == (2 * a + 3).tolist()

    def test_a_plan_that_overlaps_gives_wrong_numbers(self) -> None:
        a = np.arange(5, dtype=np.float32)
        assert run_program(diamond(0), {"in": a})["out"].tolist() != (2 * a + 3).tolist()

    def test_views_weights_and_branches(self) -> None:
        program = diamond(1)
        program.inputs.append("c")
        program.input_names.append("c")
        program.buffers["c"] = ProgramBuffer("c", tensor("bool"), "input")
        program.buffers["v"] = ProgramBuffer("v", tensor("f32", N, 1), "view", base="t1")
        program.buffers["w"] = ProgramBuffer(
            "w", tensor("f32", 3), "weight", ArrayBlob(np.array([7, 8, 9], np.float32))
        )
        take = Call(SUM, ("t0", "w", "b"), (N,))
        program.steps[2] = Branch("c", (Call(SUM, ("t0", "v", "b"), (N,)),), (take,))
        a = np.arange(3, dtype=np.float32)
        assert run_program(program, {"in": a, "c": np.array(True)})["out"].tolist() == (2 * a + 3).tolist()
        assert run_program(program, {"in": a, "c": np.array(False)})["out"].tolist() == [8, 10, 12]

    def test_errors_name_the_call_and_its_sources(self) -> None:
        bad = parse_kernel("kernel @bad(in x: f32[N], out y: f32[N]) { for i in 0..N { y[i] = x[i + K] } }")
        program = diamond(1)
        program.steps[1] = Call(bad, ("t0", "t1"), (1, N), ("conv7",))
        with pytest.raises(IndexError, match=r"bad\(t0, t1\) \(from conv7\): x\[5\] lies outside"):
            run_program(program, {"in": np.ones(5, np.float32)})
        with pytest.raises(ValueError, match="no feed for input 'in'"):
            run_program(program, {})

    def test_a_compiled_kernel_runs_at_any_size(self) -> None:
        run = compile_kernel(ADD1)
        for n in (0, 1, 4):
            y = np.zeros(n, np.float32)
            run([np.ones(n, np.float32), y], None)
            assert y.tolist() == [2] * n


class TestArtifacts:
    def test_a_graph_is_written_and_read_back_with_its_weights(self, tmp_path: Path) -> None:
        graph = Graph("g")
        b = Builder(graph)
        rng = np.random.default_rng(0)
        consts = [
            rng.integers(-8, 8, (5, 5)).astype(t.i4.numpy),
            rng.random((3, 50)).astype(t.bf16.numpy),
            rng.random(100) < 0.5,
            np.array([f"s{i}" for i in range(20)], dtype=object),
            np.float32(1.5),
            rng.random((4, 5)).astype(np.float32),
        ]
        values = [b.const(ArrayBlob(np.asarray(c)), name=f"c{i}") for i, c in enumerate(consts)]
        x = graph.add_input("x", tensor("f32", N, 5))
        graph.set_outputs([*values, b.matmul(x, b.transpose(values[5], perm=(1, 0)))], [f"o{i}" for i in range(7)])
        backend = ReferenceBackend()
        backend.emit(backend.pipeline().run(graph), tmp_path)
        artifact = Artifact(tmp_path)
        found = backend.load(artifact.folder, artifact.manifest).run({"x": np.ones((2, 5), np.float32)})
        for name, const_ in zip(found, consts):
            np.testing.assert_array_equal(found[name], const_)
        np.testing.assert_allclose(found["o6"], np.ones((2, 5)) @ consts[5].T, rtol=1e-6)

    def test_damaged_folders_and_wrong_feeds_are_errors_of_the_user(self, tmp_path: Path) -> None:
        backend = ReferenceBackend()
        backend.emit(parse_graph(GRAPH), tmp_path)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        with pytest.raises(UsageError, match="no feed for input 'y'"):
            backend.load(tmp_path, manifest).run({"x": rows(1)})
        (tmp_path / "model.graph").write_text(GRAPH.replace("add %x", "adt %x"))
        with pytest.raises(ModelError, match="no op named 'adt'"):
            backend.load(tmp_path, manifest)
        (tmp_path / "model.graph").unlink()
        with pytest.raises(CompileError):
            backend.load(tmp_path, manifest)
        with pytest.raises(UsageError, match="runs graphs"):
            backend.emit(diamond(1), tmp_path)  # type: ignore[arg-type]

    def test_ops_with_a_reference_are_accepted(self) -> None:
        accepted = [ReferenceBackend().accepts(node) for node in parse_graph(GRAPH).nodes()]
        assert accepted == [True] * 4  # const, add, mul, dims
