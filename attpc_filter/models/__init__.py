"""The bundles that ship: one ONNX file each, with its contract inside."""
