"""ONNX graphs: number formats of nodes, passes over them, sessions that run them."""
