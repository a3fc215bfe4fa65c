"""Arguments that several verbs take: dims, targets, inputs, and a model that is either an .onnx file or an artifact."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.errors import ModelError, UsageError

if TYPE_CHECKING:
    from compiler.artifact import Artifact
    from compiler.commands.console import Console
    from compiler.driver import Model
    from compiler.feeds import Signature

Target = Annotated[
    str, typer.Option("--target", "-t", help="Target and its options: c,march=native (see `sesame targets`).")
]
DimOption = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=SIZE", help="Fix (N=1) or bound (seq=1..512, H=16..) a dim.")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads that the model uses.")]
March = Annotated[str | None, typer.Option("--march", help="Processor the code is for: native, x86-64-v3 ...")]
OptLevel = Annotated[
    str | None, typer.Option("-O", metavar="LEVEL", help="How the C compiler optimises: 0, 1, 2, 3, s.")
]
Winograd = Annotated[
    bool | None,
    typer.Option("--winograd/--no-winograd", help="Whether convolutions may be done by Winograd's filtering."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="f32|bf16", help="Of the operands of products: bf16 rounds them to half the memory."
    ),
]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--deterministic/--no-deterministic", help="The same bits on every processor and with every compiler; slower."
    ),
]
TunedFile = Annotated[
    Path | None, typer.Option("--tuned", metavar="FILE", help="Choices that `sesame tune` has measured.")
]
InputOption = Annotated[
    list[str] | None, typer.Option("--input", metavar="NAME=FILE.npy", help="An input; may be repeated.")
]
InputsOption = Annotated[Path | None, typer.Option("--inputs", metavar="FILE.npz", help="All inputs by name.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of random inputs, which are used where none are given.")]
Subject = Annotated[Path, typer.Argument(metavar="MODEL|OUT", help="An .onnx file, or a folder that `compile` made.")]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.")]


def parse_dims(texts: Sequence[str] | None) -> dict[str, int | tuple[int, int | None]]:
    """`["N=1", "seq=1..512", "H=16.."]` as the driver takes it. Raises UsageError."""
    dims: dict[str, int | tuple[int, int | None]] = {}
    for text in texts or ():
        found = re.fullmatch(r"(.+?)=(\d+)(?:(\.\.)(\d*))?", text.strip())
        if not found:
            raise UsageError(
                "E0201", f"cannot read the dim '{text}'", help="write it as --dim N=1, --dim seq=1..512 or --dim H=16.."
            )
        name, least, is_range, most = found.groups()
        if not is_range:
            dims[name] = int(least)
            continue
        if most and int(most) < int(least):
            raise UsageError("E0201", f"the dim '{text}' has no size: {least} is more than {most}")
        dims[name] = (int(least), int(most) if most else None)
    return dims


def target_options(
    threads: int | None = None, march: str | None = None, opt: str | None = None, **more: str | bool | None
) -> dict[str, Any]:
    """Options of the target that were given."""
    given: dict[str, Any] = {"threads": threads, "march": march, "opt": None if opt is None else f"-O{opt}", **more}
    return {name: value for name, value in given.items() if value is not None}


def is_artifact(path: Path) -> bool:
    """Whether `path` is a folder. Raises ModelError where there is nothing."""
    if not path.exists():
        raise ModelError("E0301", "there is no such file or folder", file=str(path))
    return path.is_dir()


@dataclass
class Opened:
    """What a verb works on: an artifact, compiled for the occasion where an .onnx file was given (then `model`)."""

    artifact: Artifact
    signature: Signature
    model: Model | None
    sizes: dict[str, int]


def open_subject(
    console: Console, path: Path, target: str, dims: Sequence[str] | None, options: dict[str, Any], scratch: Path
) -> Opened:
    """The artifact at `path`, or the model there compiled into `scratch`. Raises CompileError."""
    from compiler.artifact import Artifact
    from compiler.feeds import Signature

    wanted = parse_dims(dims)
    if is_artifact(path):
        sizes = {name: size for name, size in wanted.items() if isinstance(size, int)}
        if len(sizes) != len(wanted):
            raise UsageError("E0201", "an artifact's dims are bounded already", help="give a size, as in --dim N=4")
        artifact = Artifact(path)
        return Opened(artifact, Signature.of_manifest(artifact.manifest), None, sizes)
    from compiler.driver import compile, load

    with console.stage("import"):
        model = load(path, wanted)
    with console.stage("compile"):
        artifact = compile(model, target, out=scratch / "model", **options)
    return Opened(artifact, Signature.of_manifest(artifact.manifest), model, {})


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for what is compiled only to be run now."""
    return tempfile.TemporaryDirectory(prefix="sesame-", ignore_cleanup_errors=True)


def gather_feeds(
    console: Console,
    signature: Signature,
    inputs: Path | None,
    single: Sequence[str] | None,
    seed: int,
    sizes: dict[str, int],
) -> dict[str, Any]:
    """The inputs given in files, or random ones (which a line on stderr says). Raises UsageError."""
    from compiler.feeds import fit_feeds, random_feeds, read_npy, read_npz

    if inputs is None and not single:
        if signature.inputs:
            console.log(f"no inputs given: random ones, seed {seed}")
        return random_feeds(signature, seed, sizes)
    feeds = read_npz(inputs) if inputs is not None else {}
    for text in single or ():
        name, mark, file = text.partition("=")
        if not mark:
            raise UsageError("E0208", f"cannot read the input '{text}'", help="write it as --input NAME=FILE.npy")
        feeds[name] = read_npy(file)
    return fit_feeds(signature, feeds)


def load_artifact(console: Console, artifact: Artifact, threads: int | None = None) -> Any:
    """The artifact ready to run, built where it is not."""
    with console.stage("build"):
        return artifact.load(**({} if threads is None else {"threads": threads}))
