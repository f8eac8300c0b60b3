"""Triton's PyTorch backend: TorchScript."""
