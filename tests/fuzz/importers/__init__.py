"""Random models of one node, drawn from the schemas of ONNX, and what becomes of them.

`python -m tests.fuzz.importers --cases 20000 --seed 0` runs them and prints counts by operator and verdict.
"""
