"""The ONNX frontend: reads a model file and makes a graph of it. Imports nothing here: onnx takes long to import."""
