"""Strings as cells: what every op becomes means the same, and models with strings compile to C and run."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import compiler
import ir.ops  # noqa: F401
from compiler import observe
from compiler.errors import CompileError, Problems, UsageError
from compiler.passes.strings import strings
from ir import cells
from ir import types as t
from ir.build import Builder
from ir.evaluate import evaluate_graph
from ir.functions import convert
from ir.graph import Graph, Value
from ir.op import OPS, Example
from ir.types import TensorType


def array(*items: str) -> np.ndarray:
    return np.array(items, dtype=object)


def examples() -> dict[str, tuple[str, Example]]:
    """Every example of an op with a form on cells, or a composite, that has strings in it, or gives strings."""
    found = {}
    for name, cls in sorted(OPS.items()):
        if not cls.has("on_cells") and not cls.has("expand"):
            continue
        for number, example in enumerate(cls.examples):
            arrays = example.arrays()
            try:
                result = cls(**example.attributes).reference(*arrays)
            except TypeError:  # operands that are no arrays
                continue
            results = result if isinstance(result, tuple) else (result,)
            if any(a is not None and np.asarray(a).dtype == object for a in (*arrays, *results)):
                found[f"{name}-{number}"] = (name, example)
    return found


def example_graph(name: str, example: Example) -> tuple[Graph, list[np.ndarray]]:
    """A graph of one op, and the arrays of its inputs: the operands that the example gives as types."""
    graph, feeds, operands = Graph("example"), [], []
    builder = Builder(graph)
    for i, (operand, given) in enumerate(zip(example.operands, example.arrays())):
        if given is None:
            operands.append(None)
        elif isinstance(operand, TensorType):
            operands.append(graph.add_input(f"x{i}", operand))
            feeds.append(given)
        else:
            operands.append(builder.const(given))
    made = builder.apply(OPS[name](**example.attributes), *operands)
    graph.set_outputs(made if isinstance(made, tuple) else (made,))
    return graph, feeds


def run_on_cells(graph: Graph, feeds: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph after the pass: strings go in and come out as cells."""
    were: list[Value] = list(graph.outputs)
    is_string = [isinstance(v.type, TensorType) and v.type.dtype.kind == "string" for v in were]
    strings.run(graph)
    given = [cells.encode(feed) if feed.dtype == object else feed for feed in feeds]
    made = evaluate_graph(graph, given)
    return [cells.decode(each) if was else each for each, was in zip(made, is_string)]


def test_every_op_with_a_form_on_cells_has_an_example_of_strings() -> None:
    named = {name for name, _ in examples().values()}
    assert named >= {name for name, cls in OPS.items() if cls.has("on_cells")}


@pytest.mark.parametrize("name", list(examples()))
def test_an_op_means_the_same_on_cells(name: str) -> None:
    op, example = examples()[name]
    graph, feeds = example_graph(op, example)
    expected = OPS[op](**example.attributes).reference(*example.arrays())
    expected = expected if isinstance(expected, tuple) else (expected,)
    for got, want in zip(run_on_cells(graph, feeds), expected, strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        assert got.tolist() == want.tolist()


class TestCells:
    """Strings of any kind in cells, and back."""

    def test_there_and_back(self) -> None:
        given = np.array([["", "a"], ["é中\U0001f600", "b c"]], object)
        made = cells.encode(given)
        assert made.shape == (2, 2, 9)
        assert cells.decode(made).tolist() == given.tolist()

    def test_what_has_no_cell(self) -> None:
        with pytest.raises(ValueError, match="NUL"):
            cells.encode(array("a\0b"))
        with pytest.raises(ValueError, match="no Unicode text"):
            cells.encode(array("\ud800"))
        with pytest.raises(ValueError, match="a string has 3 bytes, a cell 2"):
            cells.encode(array("a", "abc"), 2)
        with pytest.raises(ValueError, match="3 is a int, not a string"):
            cells.encode(np.array([3], object))

    def test_what_follows_a_zero_byte_is_nothing(self) -> None:
        assert cells.decode(np.array([[97, 0, 98], [0, 97, 97]], np.uint8)).tolist() == ["a", ""]


MODEL = """<ir_version: 8, opset_import: ["": 20]>
tiny (string[n,m] a, string[m] b, bool[n,1] c) => (string[n,m] y, string[m,n] z, string[k,m] w, bool[n,m] e) {
  y = StringConcat(a, b)
  z = Transpose(a)
  t = Where(c, a, b)
  w = Concat<axis=0>(t, a)
  e = Equal(a, b)
}"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> compiler.Artifact:
    folder: Path = tmp_path_factory.mktemp("strings")
    return compiler.compile(onnx.parser.parse_model(MODEL), out=folder / "tiny", opt="-O1")


class TestCompiled:
    """One model in C, with strings from outside."""

    def feeds(self) -> dict[str, np.ndarray]:
        a = np.array([["a", "é"], ["zz", ""], ["q", "a longer one"]], object)
        return {"a": a, "b": array("bb", "é"), "c": np.array([[True], [False], [True]])}

    def test_it_gives_what_the_interpreter_gives(self, model: compiler.Artifact) -> None:
        feeds, graph = self.feeds(), compiler.load(onnx.parser.parse_model(MODEL)).graph
        expected = evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
        for (name, got), want in zip(model.load().run(feeds).items(), expected, strict=True):
            assert got.shape == want.shape and got.tolist() == want.tolist(), name

    def test_no_pass_changes_what_it_means(self) -> None:
        pipeline = compiler.find_backend("c").pipeline()
        numerics = observe.Numerics(self.feeds())
        pipeline.run(compiler.load(onnx.parser.parse_model(MODEL)), watch=[numerics, observe.Verify()])
        assert "fuse" in dict(numerics.worst)

    def test_the_manifest_and_the_header_say_what_holds_strings(self, model: compiler.Artifact) -> None:
        strings = {key for key, kind in model.manifest["kinds"].items() if kind == ["strings"]}
        assert strings == {"input a", "input b", "output y", "output z", "output w"}
        assert model.manifest["inputs"][0]["shape"] == ["n", "m", "a_bytes"]
        assert model.manifest["outputs"][0]["shape"] == ["n", "m", "a_bytes+b_bytes"]
        assert "a: u8[n,m,a_bytes], strings: UTF-8" in (model.folder / "model.h").read_text()

    def test_inputs_that_are_no_strings_are_refused(self, model: compiler.Artifact) -> None:
        loaded, feeds = model.load(), self.feeds()
        with pytest.raises(UsageError, match="'b' is int64; the model takes strings"):
            loaded.run({**feeds, "b": np.array([1, 2])})
        with pytest.raises(UsageError, match=r"'b': the string .* holds a NUL"):
            loaded.run({**feeds, "b": array("a\0", "b")})
        with pytest.raises(UsageError, match=r"'b' has shape \[1, 2\]; the model takes string\[m\]"):
            loaded.run({**feeds, "b": array("a", "b")[None]})


def test_all_that_has_no_form_is_refused_with_its_reason() -> None:
    graph = Graph("bad")
    x = graph.add_input("x", TensorType(t.string, (2,)))
    b = Builder(graph, None, ("node",))
    graph.set_outputs([b.concat(x, b.const(array("a\0b")), axis=0), b.sequence_construct(x)])
    with pytest.raises(Problems) as caught:
        strings.run(graph)
    first, second = caught.value.errors
    assert "the string 'a\\x00b' holds a NUL character" in str(first)
    assert "sequence_construct of strings has no form without strings" in str(second)


def converted(source: str, to: str, folder: Path, **options: str) -> Any:
    """A compiled model that casts a vector."""
    number = onnx.TensorProto.DataType.Value(to.upper())
    text = f"""<ir_version: 8, opset_import: ["": 20]>
    convert ({source}[n] x) => ({to}[n] y) {{ y = Cast<to={number}>(x) }}"""
    return compiler.compile(onnx.parser.parse_model(text), out=folder / to, opt="-O1", **options).load()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return converted("string", "int64", tmp_path_factory.mktemp("integers"))


class TestNumbers:
    """Numbers as text and back, where the reference is Python's own conversion."""

    @pytest.mark.parametrize(("name", "bits"), [("float16", np.uint16), ("float", np.uint32), ("double", np.uint64)])
    def test_floats_are_printed_as_by_repr_and_read_back_exactly(self, name: str, bits: type, tmp_path: Path) -> None:
        rng, width = np.random.default_rng(0), np.dtype(bits).itemsize
        x = rng.integers(0, 1 << 8 * width, 1500, dtype=bits).view(f"f{width}")
        x = np.concatenate([x, np.append(rng.standard_normal(300), rng.integers(0, 10**6, 200) / 1000).astype(x.dtype)])
        printed = converted(name, "string", tmp_path).run({"x": x})["y"]
        assert printed.tolist() == convert(x, t.string).tolist()
        if name == "double":
            assert printed.tolist() == [repr(v) for v in x.tolist()]
        np.testing.assert_array_equal(converted("string", name, tmp_path).run({"x": printed})["y"], x)

    def test_decimals_of_any_length_are_rounded_once(self, tmp_path: Path) -> None:
        rng, texts = np.random.default_rng(1), []
        for v in rng.integers(0, 0x7FE0 << 48, 60, dtype=np.uint64).view(np.float64):
            half = Fraction(float(v)) / 2 + Fraction(float(np.nextafter(v, np.inf))) / 2
            digits = f"{half.numerator * 10**1080 // half.denominator}e-1080"  # exact: 2**1075 divides 10**1080
            texts += [digits, digits.replace("e", "0001e"), f"{int(digits[:-6]) - 1}e-1080"]
        for _ in range(100):
            whole, part = rng.integers(0, 10, rng.integers(1, 40)), rng.integers(0, 10, rng.integers(0, 30))
            texts.append(f"{''.join(map(str, whole))}.{''.join(map(str, part))}E{rng.integers(-360, 320)}")
        texts += [
            "1" + "0" * 900 + "e-900",
            "0." + "0" * 900 + "1e901",
            "1e99999999999999999999",
            "0e99999999999999999999",
        ]
        got = converted("string", "double", tmp_path).run({"x": array(*texts)})["y"]
        np.testing.assert_array_equal(got, [float(text) for text in texts])

    @pytest.mark.parametrize("text", ["", "abc", "1 2", "1e", "--1", ".", "0x10", "1_0", "infin", "nanx", "1.2.3", "٣"])
    def test_what_is_no_number_is_refused(self, text: str, loaded: Any) -> None:
        with pytest.raises(CompileError, match="no number"):
            loaded.run({"x": array("1", text)})
        with pytest.raises(ValueError, match="is no number"):
            convert(array(text), t.i64)

    @pytest.mark.parametrize("text", ["18446744073709551616", "-9223372036854775809", "1e20", "inf", "nan", "-1e300"])
    def test_what_is_no_integer_of_64_bits_is_refused(self, text: str, loaded: Any) -> None:
        with pytest.raises(CompileError, match="no number"):
            loaded.run({"x": array("1", text)})
        with pytest.raises(ValueError, match="out of the range of integers"):
            convert(array(text), t.i64)

    def test_zeros_before_an_integer_are_any_number(self, loaded: Any) -> None:
        texts = array("0" * 5000 + "1", "-" + "0" * 5000 + "12", "+" + "0" * 5000, "0" * 5000 + "18446744073709551615")
        np.testing.assert_array_equal(loaded.run({"x": texts})["y"], [1, -12, 0, -1])
        assert convert(texts, t.i64).tolist() == [1, -12, 0, -1]


PIPELINE = """<ir_version: 8, opset_import: ["": 20, "ai.onnx.ml": 3]>
words (string[n] x, int64[m] pick, bool flag) => (string[n,k] parts, int64[n] counts, string[p] kept, bool[n] fits,
  float[n,4] grams, string[n] label, float[n,3] hot, string[n] chosen, string[n] number, int64[n] back) {
  parts, counts = StringSplit<delimiter=",">(x)
  kept = StringNormalizer<case_change_action="UPPER", is_case_sensitive=0, stopwords=["a", "STRASSE"]>(x)
  fits = RegexFullMatch<pattern="[a-z,]+">(x)
  flat = Unsqueeze(x, one)
  grams = TfIdfVectorizer<max_gram_length=1, max_skip_count=0, min_gram_length=1, mode="TF", ngram_counts=[0],
    ngram_indexes=[3, 0, 2], pool_strings=["a,b", "a", ""]>(flat)
  key = ai.onnx.ml.LabelEncoder<keys_strings=["a", "b", "a,b"], values_int64s=[1, 2, 3], default_int64=0>(x)
  label = ai.onnx.ml.LabelEncoder<keys_int64s=[1, 3], values_strings=["first", "third"], default_string="other">(key)
  hot = ai.onnx.ml.OneHotEncoder<cats_strings=["b", "a", "z"], zeros=1>(x)
  chosen = If(flag) <
    then_branch = then_graph () => (string[n] t) { t = StringConcat(x, label) },
    else_branch = else_graph () => (string[n] e) { e = Identity(x) }
  >
  number = Cast<to=8>(counts)
  back = Cast<to=7>(number)
}"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Graph]:
    """A model of many operators on strings, compiled; and its graph."""
    text = PIPELINE.replace("flat = Unsqueeze(x, one)", "one = Constant<value_ints=[1]>() flat = Unsqueeze(x, one)")
    proto = onnx.parser.parse_model(text)
    artifact = compiler.compile(proto, out=tmp_path_factory.mktemp("words") / "words", opt="-O1")
    return artifact.load(), compiler.load(proto).graph


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("items", [("a", "b", "a,b", "", "Straße,é,,ı"), ("A",), ("", ""), ("x,y" * 40, "z")])
def test_operators_on_strings_from_outside(words: tuple[Any, Graph], items: tuple[str, ...], flag: bool) -> None:
    loaded, graph = words
    feeds = {"x": array(*items), "pick": np.array([0]), "flag": np.array(flag)}
    expected = evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
    for (name, got), want in zip(loaded.run(feeds).items(), expected, strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape, name
        assert got.tolist() == want.tolist(), name


def test_patterns_that_need_too_many_states_are_refused() -> None:
    graph = Graph("regex")
    x = graph.add_input("x", TensorType(t.string, (2,)))
    graph.set_outputs([Builder(graph).regex_full_match(x, pattern="(a|b)*a(a|b){16}")])
    with pytest.raises(Problems, match="needs more than 5000 states"):
        strings.run(graph)


LOOP = """<ir_version: 8, opset_import: ["": 20]>
loop (string[n] x, string[n] tail) => (string[n] y, string[n] longer, string[s,n] steps) {
  trip = Constant<value_int=3>()
  one = Constant<value_int=1>()
  go = Cast<to=9>(one)
  y, longer, steps = Loop(trip, go, x, tail) <
    body = step (int64 i, bool cond, string[n] a, string[n] b) => (bool on, string[n] a2, string[n] b2, string[n] e) {
      on = Identity(cond)
      w = Constant<value_strings=["ab"]>()
      replacement = Constant<value_strings=["a longer one"]>()
      z = Equal(a, w)
      a2 = Where(z, replacement, a)
      b2 = StringConcat(b, w)
      size = Shape(a)
      wide = Expand(i, size)
      e = Cast<to=8>(wide)
    }
  >
}"""


def test_strings_that_a_loop_carries(tmp_path: Path) -> None:
    """One that gets wider once, one that grows in every step, and one that is stacked."""
    proto = onnx.parser.parse_model(LOOP)
    loaded, graph = compiler.compile(proto, out=tmp_path / "loop", opt="-O1").load(), compiler.load(proto).graph
    feeds = {"x": array("ab", "c", "ab"), "tail": array("", "x", "yz")}
    expected = evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
    for (name, got), want in zip(loaded.run(feeds).items(), expected, strict=True):
        assert got.shape == want.shape and got.tolist() == want.tolist(), name


SCAN = """<ir_version: 8, opset_import: ["": 20]>
scan (string[m] start, string[n,m] x) => (string[m] last, string[n,m] seen) {
  last, seen = Scan<num_scan_inputs=1, body = step (string[m] s, string[m] e) => (string[m] s2, string[m] o) {
    BODY
  }>(start, x)
}"""


@pytest.mark.parametrize(
    "body",
    [
        'none = Constant<value_string="">() z = Equal(e, none) s2 = Where(z, s, e) o = StringConcat(s, e)',
        "s2 = StringConcat(s, e) o = Identity(e)",
    ],
)
def test_strings_that_a_scan_reads_and_stacks(body: str, tmp_path: Path) -> None:
    """Its state is one of the strings, or grows by each."""
    proto = onnx.parser.parse_model(SCAN.replace("BODY", body))
    loaded, graph = compiler.compile(proto, out=tmp_path / "scan", opt="-O1").load(), compiler.load(proto).graph
    feeds = {"start": array("a", "bb"), "x": np.array([["", "long"], ["x", ""], ["", ""]], object)}
    expected = evaluate_graph(graph, [feeds[v.name] for v in graph.inputs])
    for (name, got), want in zip(loaded.run(feeds).items(), expected, strict=True):
        assert got.shape == want.shape and got.tolist() == want.tolist(), name


def test_strings_that_grow_are_not_stacked() -> None:
    proto = onnx.parser.parse_model(SCAN.replace("BODY", "s2 = StringConcat(s, e) o = Identity(s2)"))
    with pytest.raises(CompileError, match="strings that a loop stacks must have one width"):
        compiler.find_backend("c").pipeline().run(compiler.load(proto))
