"""The model bundle (one ONNX file with its contract) and the sessions that run it."""
