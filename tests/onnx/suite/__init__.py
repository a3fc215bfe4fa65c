"""The official ONNX backend test suite of the installed onnx package, run on Sesame's devices.

    python -m tests.onnx.suite --device REFERENCE|CPU [--variant NAME] [--jobs 2] [--filter REGEX]

Variants of each case: `dynamic` has symbols for the sizes of its inputs, and one artifact for them all; `constants` has
initializers for small inputs; `minimal` has no pass that can be left out; `versions` is the case in older opsets.

`expected_DEVICE.txt` names the cases that pass and the ones that are refused, with the reason's code; it may only grow.
"""
