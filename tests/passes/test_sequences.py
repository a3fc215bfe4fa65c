"""What `sequences` refuses: every reason of a model at once, about the inputs and ops that it is about."""

from __future__ import annotations

import pytest

import compiler
from compiler.pipeline import PASSES, load_passes
from ir.fresh import FreshSizes
from ir.parse import parse_graph


def refusals(text: str) -> list[compiler.CompileError]:
    load_passes()
    with pytest.raises(compiler.CompileError) as caught:
        PASSES["sequences"].run(parse_graph(text))
    assert caught.value.exit_code == 4
    return list(getattr(caught.value, "errors", (caught.value,)))


def test_every_op_that_is_refused_is_named() -> None:
    """Only the first was; what uses the result of a refused one is not its fault."""
    found = refusals("""graph @g(%x: f32[2,2], %w: f32[2,2], %s: seq<f32[2]>) -> (i64[], i64[], f32[2]) {
      %a: seq<map<i64,f32[]>> = zip_map %x {keys=[3,1]}   loc("first")
      %n: i64[] = sequence_length %a   loc("innocent")
      %b: seq<map<i64,f32[]>> = zip_map %w {keys=[3,1]}   loc("second")
      %m: i64[] = sequence_length %b
      %at: f32[2] = sequence_at %s, %n {shape=[2]}
      return %n, %m, %at
    }""")
    assert [error.node.name for error in found if error.node] == ["first", "second"]
    assert {error.code for error in found} == {"E0410"}


def test_ops_in_branches_that_are_refused_are_named() -> None:
    def branch(name: str) -> str:
        made = f'%m: seq<map<i64,f32[]>> = zip_map %x {{keys=[3,1]}}   loc("{name}")'
        return f"graph @{name}(%x: f32[2,2]) -> (seq<map<i64,f32[]>>) {{\n{made}\nreturn %m\n}}"

    found = refusals(f"""graph @g(%c: bool[], %x: f32[2,2]) -> (i64[]) {{
      %a: seq<map<i64,f32[]>> = if_ %c, %x, %x {{then={branch("one")}, orelse={branch("two")}, label="if"}}
      %n: i64[] = sequence_length %a
      return %n
    }}""")
    assert [error.node.name for error in found if error.node] == ["one", "two"]


def test_inputs_that_have_no_form_are_named() -> None:
    """The first op was blamed, and where there was none, the pass failed itself."""
    found = refusals("""graph @g(%x: f32[3], %m: map<i64,f32[]>, %s: seq<map<i64,f32[]>>) -> (f32[3], i64[]) {
      %y: f32[3] = neg %x   loc("innocent")
      %n: i64[] = sequence_length %s   loc("innocent, too")
      return %y, %n
    }""")
    assert [error.node for error in found] == [None, None]
    assert [error.message.partition(",")[0] for error in found] == ["input 'm' is map<i64", "input 's' is seq<map<i64"]
    found = refusals("graph @g(%m: map<i64,f32[]>) -> (map<i64,f32[]>) {\n  return %m\n}")
    assert "input 'm'" in found[0].message and found[0].code == "E0410"


def test_sizes_are_fresh_in_all_of_a_graph() -> None:
    graph = parse_graph("""graph @g(%s: seq<f32[a]>, %o: optional<f32[b2]>, %c: bool[], %x: f32[b]) -> (f32[b]) {
      %y: f32[b] = if_ %c, %x, %x {then=graph @then(%x: f32[b]) -> (f32[b]) {
        %z: f32[b] = neg %x
        return %z
      }, orelse=graph @else(%x: f32[b]) -> (f32[b]) {
        return %x
      }, label="if"}
      return %y
    }""")
    fresh = FreshSizes(graph)
    assert [str(fresh(hint)) for hint in ("a", "b", "b", "c", "c")] == ["a2", "b3", "b4", "c", "c2"]
