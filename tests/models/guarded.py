"""Runs an artifact with its arena between two inaccessible pages; a child process, because a fault ends it.

    python -m tests.models.guarded FOLDER INPUTS.npz OUTPUTS.npz

The arena ends exactly where the upper page begins in a first run, and begins exactly where the lower one ends in a
second. Every byte of the arena is poisoned before each run, so that nothing rests on what was there before.

    python -m tests.models.guarded RUNS.pickle RESULTS.pickle

runs many artifacts on many inputs, with inputs and outputs fenced as well; it names each before it runs.
"""

from __future__ import annotations

import ctypes
import mmap
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.c import CBackend
from backends.c.loader import CModel
from backends.c.ports import Ports
from compiler.artifact import Artifact
from compiler.errors import CompileError

ROOT = Path(__file__).parents[2]
Outcome = dict[str, Any] | str
"""Outputs by name, or the text of a refusal."""
_PAGE = mmap.PAGESIZE
_POISON = 0xFF  # as f32, a NaN


class Fence:
    """Memory of a whole number of pages with an inaccessible page on either side."""

    def __init__(self, needed: int) -> None:
        self.room = max(1, -(-needed // _PAGE)) * _PAGE
        self.needed = needed
        self.map = mmap.mmap(-1, self.room + 2 * _PAGE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        libc = ctypes.CDLL(None, use_errno=True)
        for page in (self.base, self.base + _PAGE + self.room):
            if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect failed")

    def arena(self, *, at_end: bool) -> int:
        """The address of the poisoned arena, flush with the upper page or with the lower one."""
        ctypes.memset(self.base + _PAGE, _POISON, self.room)
        return self.base + _PAGE + (self.room - self.needed if at_end else 0)


class GuardedModel(CModel):
    """A model whose arena is fenced; `at_end` says on which side it touches its fence."""

    at_end = True

    def run(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        self._room = -1  # a fence for each run
        return super().run(feeds, outputs)

    def _arena_of(self, needed: int) -> int:
        self.fence = Fence(needed)
        return self.fence.arena(at_end=self.at_end)


class FencedPorts(Ports):
    """Inputs and outputs of which each has a fence of its own."""

    at_end = True

    def arrays(self, feeds: Mapping[str, Any]) -> list[np.ndarray]:
        return [self._fenced(array) for array in super().arrays(feeds)]

    def as_they_are(self, feeds: Mapping[str, Any]) -> None:
        """None: C takes no array that is not fenced."""

    def new(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return self._fenced(np.empty(shape, dtype))

    def _fenced(self, array: np.ndarray) -> np.ndarray:
        fence = Fence(array.nbytes)
        offset = fence.arena(at_end=self.at_end) - fence.base
        made = np.ndarray(array.shape, array.dtype, buffer=fence.map, offset=offset)
        made[...] = array
        return made


def run_fenced(runs: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]], folder: Path) -> list[list[Outcome]]:
    """What artifacts make of inputs with a fence around each memory, in a process of its own; `runs` are names, folders
    of artifacts, and feeds. Raises AssertionError where memory outside is touched."""
    given, taken = folder / "runs.pickle", folder / "results.pickle"
    given.write_bytes(pickle.dumps(runs))
    command = [sys.executable, "-m", "tests.models.guarded", str(given), str(taken)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    last = done.stdout.strip().splitlines()[-1:]
    assert done.returncode == 0, f"status {done.returncode} in {last}: {done.stderr[-2000:]}"
    return pickle.loads(taken.read_bytes())


def run_many(runs: str, results: str) -> None:
    """Runs [(name, folder, [feeds])]; writes what each gives."""
    found: list[list[Outcome]] = []
    for name, folder, feeds in pickle.loads(Path(runs).read_bytes()):
        manifest = Artifact(folder).manifest
        model = GuardedModel(Path(folder), manifest, CBackend(**dict(manifest["options"])))
        model.ports = ports = FencedPorts(manifest)
        found.append([])
        for number, each in enumerate(feeds):
            print(name, number, flush=True)
            made: list[Outcome] = []
            for at_end in (True, False):
                model.at_end = ports.at_end = at_end
                try:
                    made.append({key: value.copy() for key, value in model.run(each).items()})
                except CompileError as error:
                    made.append(str(error))
            if pickle.dumps(made[0]) != pickle.dumps(made[1]):
                raise SystemExit("what it gives depends on where its memory lies")
            found[-1].append(made[0])
    Path(results).write_bytes(pickle.dumps(found))


def main(folder: str, inputs: str, outputs: str) -> None:
    artifact = Artifact(folder)
    options: dict[str, Any] = dict(artifact.manifest["options"])
    model = GuardedModel(Path(folder), artifact.manifest, CBackend(**options))
    model.ports.kinds = {}  # the tensors of C, as they are
    given = dict(np.load(inputs))
    feeds = {port.name: given[port.name] for port in model.ports.inputs}
    results = []
    for at_end in (True, False):
        model.at_end = at_end
        results.append(model.run(feeds))
    for name, first in results[0].items():
        if first.tobytes() != results[1][name].tobytes():
            raise SystemExit(f"output {name} depends on where the arena lies")
    np.savez(outputs, **results[0])


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 4 else run_many(*sys.argv[1:])
