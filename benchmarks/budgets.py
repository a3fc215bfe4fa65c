"""What the compiler itself costs, as a table: start-up, memory on large weights, time on many nodes, compile time.

    python -m benchmarks.budgets [--large GIGABYTES]

Each figure is measured in a process of its own. The large model is made in a temporary folder, with its weights as
external data; nothing is asserted here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

_MEASURE = """
import json, resource, sys, time
start = time.perf_counter()
import compiler
from compiler.driver import load
from compiler.backend import find_backend
from compiler.pipeline import run_pass
from ir.graph import Graph
imported = time.perf_counter()
model = load(sys.argv[1])
loaded = time.perf_counter()
backend = find_backend("c")
steps, unit, graph_level = backend.pipeline(), model.graph.clone(), 0.0
for step in steps.passes:
    began = time.perf_counter()
    on_graph = isinstance(unit, Graph) and step.stage == "graph"
    unit = run_pass(step, unit)
    graph_level += (time.perf_counter() - began) if on_graph else 0.0
lowered = time.perf_counter()
backend.emit(unit, sys.argv[2], model)
emitted = time.perf_counter()
print(json.dumps({"import_s": imported - start, "load_s": loaded - imported, "graph_passes_s": graph_level,
                  "passes_s": lowered - loaded, "emit_s": emitted - lowered, "all_s": emitted - start,
                  "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def large_model(folder: Path, gigabytes: float) -> Path:
    """A chain of products of 5120 x 5120 weights in one external data file."""
    size = 5120
    count = max(1, round(gigabytes * 1e9 / (size * size * 4)))
    block = (np.random.default_rng(0).standard_normal((size, size), dtype=np.float32) * 0.01).tobytes()
    weights, nodes, value = [], [], "x"
    with (folder / "weights.bin").open("wb") as file:
        for i in range(count):
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[size, size])
            tensor.data_location = TensorProto.EXTERNAL
            for key, text in (("location", "weights.bin"), ("offset", str(file.tell())), ("length", str(len(block)))):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, text
            file.write(block)
            weights.append(tensor)
            nodes += [
                helper.make_node("MatMul", [value, f"w{i}"], [f"m{i}"]),
                helper.make_node("Relu", [f"m{i}"], [f"r{i}"]),
            ]
            value = f"r{i}"
    return _save(folder / "large.onnx", nodes, weights, value, size)


def deep_model(folder: Path, layers: int = 1250) -> Path:
    """Four nodes a layer: MatMul, Add, Relu, Add."""
    rng = np.random.default_rng(0)
    weights, nodes, value = [], [], "x"
    for i in range(layers):
        weights.append(helper.make_tensor(f"w{i}", TensorProto.FLOAT, [16, 16], rng.standard_normal(256) * 0.1))
        weights.append(helper.make_tensor(f"b{i}", TensorProto.FLOAT, [16], [0.1] * 16))
        nodes += [
            helper.make_node("MatMul", [value, f"w{i}"], [f"m{i}"]),
            helper.make_node("Add", [f"m{i}", f"b{i}"], [f"a{i}"]),
            helper.make_node("Relu", [f"a{i}"], [f"r{i}"]),
            helper.make_node("Add", [f"r{i}", value], [f"o{i}"]),
        ]
        value = f"o{i}"
    return _save(folder / "deep.onnx", nodes, weights, value, 16)


def _save(path: Path, nodes: list, weights: list, output: str, size: int) -> Path:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name in ("x", output)]
    graph = helper.make_graph(nodes, path.stem, ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def measure(model: Path, out: Path) -> dict[str, float]:
    """Seconds and MiB of a compile without the C compiler, in a fresh process."""
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(model), str(out)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def start_up(command: list[str], runs: int = 5) -> float:
    """Median wall seconds of a command."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return sorted(times)[runs // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", type=float, default=2.4, help="gigabytes of external weights (2.4)")
    gigabytes = parser.parse_args().large
    python = start_up([sys.executable, "-c", "pass"])
    rows = [
        ("python -c pass", f"{python * 1e3:.0f} ms"),
        ("python -c 'import compiler'", f"{start_up([sys.executable, '-c', 'import compiler']) * 1e3:.0f} ms"),
        (
            "sesame --help",
            f"{start_up([os.path.join(os.path.dirname(sys.executable), 'sesame'), '--help']) * 1e3:.0f} ms",
        ),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for model, label in (
            (large_model(folder, gigabytes), f"{gigabytes} GB of external weights"),
            (deep_model(folder), "5,000 nodes"),
        ):
            figures = measure(model, folder / f"{model.stem}.out")
            rows.append((f"{label}: graph-level passes", f"{figures['graph_passes_s']:.2f} s"))
            rows.append((f"{label}: all but the C compiler", f"{figures['all_s']:.2f} s"))
            rows.append((f"{label}: peak resident", f"{figures['peak_rss_mb']:.0f} MiB"))
    for label, figure in rows:
        print(f"{label:<48}{figure:>12}")


if __name__ == "__main__":
    main()
