"""docs/operators.md is what `sesame ops` prints; with `-m sweep`, what it says is measured anew."""

from __future__ import annotations

import json

import onnx.parser
import pytest

import compiler
from compiler.onnx import coverage
from tests.onnx.suite import operators

RENEW = "`python -m tests.onnx.suite.operators` renews the page"


def _rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| domain")]


def test_the_page_is_what_the_command_prints() -> None:
    """An operator that has no findings yet may be missing on the page, so that adding one is a change of two files."""
    shown, printed = operators.PAGE.read_text(encoding="utf-8"), operators.page()
    assert shown.startswith(operators.HEAD)
    new = [
        f"| {o.domain} | {o.name} |" for o in coverage.operators() if not o.findings and f"| {o.name} |" not in shown
    ]
    assert _rows(shown) == [row for row in _rows(printed) if not row.startswith(tuple(new))], RENEW


def test_every_operator_of_onnx_is_listed() -> None:
    listed = {(o.domain, o.name): o for o in coverage.operators()}
    assert {("ai.onnx", "Conv"), ("ai.onnx.ml", "TreeEnsemble"), ("com.microsoft", "FusedMatMul")} <= set(listed)
    conv = listed["ai.onnx", "Conv"]
    assert conv.findings["interpreter"] == conv.findings["cases"] > 20 and "f32" in conv.findings["types"]
    assert {o.domain for o in coverage.operators("ai.onnx.ml")} == {"ai.onnx.ml"}


STRINGS_ONLY_INTERPRETED = {"Col2Im", "GridSample", "Resize", "TensorScatter", "Trilu", "Upsample"}
"""Operators whose schema has strings, which have no form on cells: most of them compute with what they move."""


def test_what_of_a_schema_is_missing_is_complex_numbers_and_a_few_strings_in_c() -> None:
    for operator in coverage.operators():
        found = operator.findings
        if "types" not in found:
            continue
        assert len(found["types"]) == found["schema_types"], operator.name
        missing = {"c64", "c128", *(["string"] if operator.name in STRINGS_ONLY_INTERPRETED else [])}
        assert set(found["types"]) - set(found["types_c"]) <= missing, operator.name


PROBED = {
    "conv": ("float[1,1,4,4] x) => (float[1,1,2,2] y) <float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}>", "y = Conv(x, w)"),
    "prelu": ("float[3] x) => (float[3] y) <float[3] w = {1,2,3}>", "y = PRelu(x, w)"),
    "bits": ("float[3] x) => (int32[3] y)", "y = BitCast<to=6>(x)"),
    "scan": ("float a, float[3] x) => (float y, float[3] z)",
             "y, z = Scan<num_scan_inputs=1, body = b (float p, float q) => (float r, float s) {"
             "  r = Add(p, q) s = Identity(r) }>(a, x)"),
    "grams": ("int32[3] x) => (float[2] y)",
              "y = TfIdfVectorizer<max_gram_length=1, max_skip_count=0, min_gram_length=1, mode=\"TF\","
              "  ngram_counts=[0], ngram_indexes=[0, 1], pool_int64s=[2, 3]>(x)"),
    "labels": ("string[3] x) => (int64[3] y)",
               "y = ai.onnx.ml.LabelEncoder<keys_strings=[\"a\", \"b\"], values_int64s=[1, 2]>(x)"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBED)
def test_a_probe_is_of_one_type_throughout(name: str) -> None:
    """Constants, attributes and bodies have the type of the input: what is refused is the type, not the probe."""
    values, node = PROBED[name]
    text = f'<ir_version: 13, opset_import: ["": 26, "ai.onnx.ml": 4]> probe ({values} {{ {node} }}'
    model = onnx.parser.parse_model(text)
    schema = onnx.defs.get_schema(model.graph.node[0].op_type, domain=model.graph.node[0].domain)
    numbers = {onnx.TensorProto.DataType.Value(t[7:-1].upper()) for t in schema.inputs[0].types if t[:7] == "tensor("}
    assert len(numbers) > 2
    for number in sorted(numbers):
        compiler.load(operators.retyped(model, schema.inputs[0].type_str, number))


def test_a_case_of_an_old_opset_is_probed_as_one_of_the_newest() -> None:
    text = '<ir_version: 3, opset_import: ["": 6]> old (float[3] x) => (float[3] y) { y = Relu(x) }'
    model = onnx.parser.parse_model(text)
    assert operators.newest(model, []).opset_import[0].version == 14
    text = '<ir_version: 3, opset_import: ["": 6]> old (float[3] x) => (float[5] y) { y = Pad<pads=[1, 1]>(x) }'
    model = onnx.parser.parse_model(text)
    assert operators.newest(model, []).opset_import[0].version == 6  # its pads are an input since then


@pytest.mark.sweep
def test_findings_are_current() -> None:
    assert json.loads(coverage.FINDINGS.read_text(encoding="utf-8")) == operators.measure(), RENEW
    assert operators.PAGE.read_text(encoding="utf-8") == operators.page(), RENEW
