"""The official ONNX backend test suite of the installed onnx package, run on Sesame's devices.

    python -m tests.onnx.suite --device REFERENCE|CPU [--jobs 2] [--filter REGEX]

`expected_DEVICE.txt` names the cases that pass and the ones that are refused, with the reason's code; it may only grow.
"""
