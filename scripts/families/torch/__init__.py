"""A .pth: the factory, the weights, and the reference in true float32."""
