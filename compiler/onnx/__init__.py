"""The ONNX frontend: reads a model file and makes a graph of it. Imports nothing here: onnx takes long to import.

Reading files: `load`, with `wire` (finding weights without reading them) and `external` (those in files of their own).
Making a graph: `importer`, with `signature` (inputs and dims), `functions` (bodies), `conditions` (what a branch may
know) and `needs` (which inputs a refusal asks for).
What importers in `ops` are written with: `registry`, `builder`, `told` (numbers of a run, as sizes), `axes` (numbers of
a run, as axes) and `run_time_movement` (slices, pads and the like by such numbers).
What is known of operators: `coverage`.
"""
