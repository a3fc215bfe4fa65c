"""A compiled program as a folder of C: sources, runtime, weights, build file and manifest.

Equal programs give equal bytes. Files that an earlier program left in the folder are not touched, other than by name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from backends.c import kernels as kernel_code
from backends.c.bench import bench_source, cmake
from backends.c.interface import Model, model_header
from backends.c.kernels import Function, emit_kernel
from backends.c.model import model_source
from backends.c.names import Identifiers, identifier
from backends.c.weights import Image, layout, write_file, write_source
from ir.cost import cost
from ir.dims import Limits, Size, Undecided, dim_text, greatest, names, substitute
from ir.program import Program

RUNTIME = Path(__file__).parent / "runtime"
_RUNTIME_FILES = (
    "sesame_math.h", "sesame_scalar.h", "sesame_vector.h", "sesame_vector_math.h", "sesame_pool.h", "sesame_pool.c",
)  # fmt: skip
_KERNELS_PER_FILE = 40
_LINES_PER_FILE = 4000
_LEAST_FILES = 4


@dataclass(frozen=True)
class EmitOptions:
    """How a program is written. `lanes` is the number of floats in a vector of the target.

    `weights` is "file" (model.weights, which the caller reads or maps) or "embed" (a C array). `target` goes into the
    manifest as the target's options: plain JSON values, enough to find the backend again. `source` is the name of the
    model's file. With `profile` the code takes the time of each call of a kernel, and with `deterministic` it
    gives the same bits on every processor.
    """

    weights: Literal["file", "embed"] = "file"
    lanes: int = 16
    target: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    profile: bool = False
    deterministic: bool = False


def write_project(program: Program, out_dir: Path, options: EmitOptions | None = None) -> list[Path]:
    """Writes `program` into `out_dir` and returns the files, sources first in the order to compile them.

    Raises ValueError, with the reason, for a kernel that has no C code (`unsupported` tells beforehand).
    """
    options = options or EmitOptions()
    out_dir.mkdir(parents=True, exist_ok=True)
    functions = _functions(program, options)
    image = layout(program)
    model = Model(program, functions, image, options.weights == "embed", options.profile)
    files = _write_sources(model, list(functions.values()), out_dir, options.deterministic)
    digest, weights_file = _write_weights(model, image, out_dir)
    if weights_file is not None:
        files.append(weights_file)
    for name in (*_RUNTIME_FILES, *(["sesame_exact.h"] if options.deterministic else [])):
        shutil.copyfile(RUNTIME / name, out_dir / name)
        files.append(out_dir / name)
    sources = sorted(path.name for path in files if path.suffix == ".c")
    files.append(_write(out_dir / "main.c", bench_source(model)))
    files.append(_write(out_dir / "CMakeLists.txt", cmake(model, sources, options.deterministic)))
    manifest = _manifest(model, options, digest, sorted([*(path.name for path in files), "manifest.json"]))
    files.append(_write(out_dir / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=True) + "\n"))
    return files


def version() -> str:
    """The version of this compiler, as installed."""
    try:
        return metadata.version("sesame-compiler")
    except metadata.PackageNotFoundError:
        return "unknown"


def _functions(program: Program, options: EmitOptions) -> dict[str, Function]:
    """The C function of each kernel, by the kernel's name."""
    prefix = identifier(program.name, "model")
    symbols = Identifiers()
    functions: dict[str, Function] = {}
    for kernel in program.kernels:
        symbol = symbols.fresh(f"{prefix}_k_{identifier(kernel.name, 'kernel')}")
        functions[kernel.name] = emit_kernel(kernel, symbol, options.lanes, exact=options.deterministic)
    return functions


def _write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("ascii"))
    return path


def _write_sources(model: Model, functions: list[Function], out_dir: Path, deterministic: bool) -> list[Path]:
    files = []
    for i, group in enumerate(_balanced(functions)):
        files.append(_write(out_dir / f"kernels_{i}.c", kernel_code.source(group, "model_kernels.h")))
    files.append(_write(out_dir / "model.c", model_source(model, version())))
    files.append(_write(out_dir / "model.h", model_header(model)))
    files.append(_write(out_dir / "model_kernels.h", kernel_code.header(functions, deterministic)))
    return files


def _balanced(functions: list[Function]) -> list[list[Function]]:
    """The functions in groups of about equal size, so that files compile in parallel; each group in program order."""
    lines = [function.definition.count("\n") + 3 for function in functions]
    count = max(
        min(len(functions), _LEAST_FILES), -(-len(functions) // _KERNELS_PER_FILE), -(-sum(lines) // _LINES_PER_FILE)
    )
    groups: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for i in sorted(range(len(functions)), key=lambda i: (-lines[i], i)):
        least = loads.index(min(loads))
        groups[least].append(i)
        loads[least] += lines[i]
    return [[functions[i] for i in sorted(group)] for group in groups]


def _write_weights(model: Model, image: Image, out_dir: Path) -> tuple[str | None, Path | None]:
    """Writes the weights; their SHA-256 and the file, None where there are none."""
    if not image.bytes:
        return None, None
    if model.embed:
        path = out_dir / "model_weights.c"
        return write_source(image, path, f"{model.prefix}_weights"), path
    path = out_dir / "model.weights"
    return write_file(image, path), path


def _manifest(model: Model, options: EmitOptions, digest: str | None, files: list[str]) -> dict[str, Any]:
    program = model.program
    nodes: dict[str, list[str]] = {}
    for call in program.calls():
        known = nodes.setdefault(model.functions[call.kernel.name].symbol, [])
        known.extend(source for source in call.sources if source not in known)
    total = program.arena_bytes
    bounds = {name: program.bounds.get(name, (0, None)) for name in model.sizes}
    return {
        "schema_version": 1,
        "name": program.name,
        "prefix": model.prefix,
        "compiler": {"name": "sesame", "version": version()},
        "target": "c",
        "options": dict(options.target),
        "lanes": options.lanes,
        "source": options.source,
        "pipeline": program.pipeline,
        "dims": [
            {"name": name, "field": model.dim(name), "min": bounds[name][0], "max": bounds[name][1]}
            for name in model.sizes
        ],
        "equal_dims": [[dim_text(left), dim_text(right)] for left, right in program.equal_dims],
        "equal_dims_nodes": [program.demanded_by.get(pair, "") for pair in program.equal_dims],
        "inputs": [_tensor(program, field) for field in model.inputs],
        "outputs": [_tensor(program, field) for field in model.outputs],
        "kinds": program.kinds,
        "told": [{"name": size.name, "field": size.c_name, "limit": dim_text(size.limit)} for size in model.told],
        "arena_bytes": {"expression": dim_text(total), "bytes": total if isinstance(total, int) else None},
        "weights": {
            "storage": options.weights,
            "file": None if digest is None or model.embed else "model.weights",
            "bytes": model.image.bytes,
            "sha256": digest,
        },
        "kernels": len(model.functions),
        "calls": sum(1 for _ in program.calls()),
        "nodes": nodes,
        **({"steps": list(_steps(model))} if options.profile else {}),
        "files": files,
    }


def _steps(model: Model) -> Iterator[dict[str, Any]]:
    """What each call of a kernel costs, in the order of the times that the code takes."""
    limits = model.program.limits
    costs = {kernel.name: cost(kernel) for kernel in model.program.kernels}
    for call, sources in model.program.sourced_calls():
        sizes = dict(zip(call.kernel.sizes, call.sizes))
        own = costs[call.kernel.name]
        operations, moved = (_at_most(substitute(size, sizes), limits) for size in (own.operations, own.bytes))
        yield {
            "function": model.functions[call.kernel.name].symbol,
            "nodes": list(sources),
            "operations": dim_text(operations),
            "bytes": dim_text(moved),
        }


def _at_most(size: Size, limits: Limits[Size]) -> Size:
    """A cost at the limits of sizes that only a run tells; as it is where they do not tell its greatest."""
    try:
        return greatest(size, limits)
    except Undecided:
        return size


def _tensor(program: Program, field: Any) -> dict[str, Any]:
    """An input or output in the manifest."""
    type_ = field.buffer.type
    told = {name for size in type_.shape for name in names(size)} & program.limits.keys()
    return {
        "name": field.name,
        "field": field.c_name,
        "dtype": str(type_.dtype),
        "shape": [dim_text(size) for size in type_.shape],
        **({"room": dim_text(greatest(type_.elements, program.limits))} if told else {}),
    }
