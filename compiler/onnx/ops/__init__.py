"""ONNX operators by family; the registry imports every module here."""
