"""Triton's TensorRT backend: engines built by trtexec."""
