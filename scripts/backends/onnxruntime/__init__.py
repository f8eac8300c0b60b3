"""Triton's ONNX Runtime backend: ONNX in float32 and in lower number formats."""
