"""Compile a model, run it, and hold it against the interpreter: the whole way in one small program.

    python samples/compile_model.py

The model is `samples/digits/digits.onnx`, a small CNN with a dynamic batch `N`. One compile serves every batch.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import compiler

DIGITS = Path(__file__).resolve().parent / "digits"


def main() -> int:
    data = np.load(DIGITS / "test_images.npz")
    images, labels = data["images"], data["labels"]

    # `load` imports the ONNX graph and infers every shape. Weights are not read: a constant knows the file and the
    # range of bytes it lies in. `str(model.graph)` is a text that `ir.parse` reads back.
    model = compiler.load(DIGITS / "digits.onnx")
    print(f"{model.name}: {len(model.graph)} nodes")
    print("  " + "\n  ".join(str(model.graph).splitlines()[:4]) + "\n  ...")

    with tempfile.TemporaryDirectory() as folder:
        # `compile` runs the target's pipeline and writes a folder of C. Whoever has that folder and a C compiler needs
        # nothing else: no Python, no ONNX, no runtime library.
        artifact = compiler.compile(model, target="c", out=f"{folder}/digits")
        arena = artifact.manifest["arena_bytes"]["expression"]
        print(f"{len(artifact.manifest['files'])} files; bytes of working memory: {arena}")

        # `load` builds a shared library with the host's C compiler and calls it through ctypes.
        compiled = artifact.load()
        logits = compiled.run({"image": images})["logits"]

        # N is a variable of the emitted function, so another batch needs no other compile.
        one = compiled.run({"image": images[:1]})["logits"]

    # The reference target runs the graph as it was imported, node by node in NumPy, and shares no code with the C
    # target. Where both agree, every pass and every kernel in between kept the meaning of the model.
    expected = compiler.compile(model, target="reference").load().run({"image": images})["logits"]
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())
    correct = int((logits.argmax(axis=1) == labels).sum())
    print(f"largest difference from the interpreter: {error:.1e} of the largest logit")
    print(f"digits recognised: {correct} of {len(labels)}")

    agrees = error < 1e-5 and np.allclose(one, logits[:1], rtol=1e-5, atol=1e-5)
    return 0 if agrees and correct == len(labels) else 1


if __name__ == "__main__":
    sys.exit(main())
