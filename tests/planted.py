"""Small float32 models, seeded, in which it is known which nodes float16 must leave alone.

Each has an input "x" and one logit "output" (n, 1). Three ways in which float16 goes wrong are
planted: values beyond 65504; weights that cancel, on whole numbers that float16 holds exactly, so
that nothing but the rounding of the weights counts; and weights near float16's smallest value.
"""

from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch.nn import functional

Array = NDArray[np.float32]


class Planted(NamedTuple):
    model: ModelProto
    inputs: Array
    note: str  # what is expected
    kept: frozenset[str]  # the smallest set of nodes to leave in float32


class _Graph:
    """Nodes and stored values as they are added; each node is called as its output."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.stored: list[TensorProto] = []

    def add(
        self, operator: str, out: str, *inputs: str, more: tuple[str, ...] = (), **given: object
    ) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [out, *more], name=out, **given))
        return out

    def store(self, name: str, values: object, dtype: type = np.float32) -> str:
        self.stored.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def normal(self, name: str, *shape: int, scale: float = 1.0) -> str:
        return self.store(name, scale * self.random.normal(size=shape))

    def model(self, *shape: int) -> ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])
        y = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 1])
        graph = helper.make_graph(self.nodes, "planted", [x], [y], self.stored)
        opset = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def _pairs(random: np.random.Generator, n: int, pairs: int) -> Array:
    """(n, 2 * pairs) whole numbers up to 201: each pair is nearly the same number twice."""
    large = random.integers(-200, 201, (n, pairs))
    return (
        np.stack([large + random.integers(-1, 2, large.shape), large], 2)
        .reshape(n, -1)
        .astype(np.float32)
    )


def _cancelling(random: np.random.Generator, pairs: int, columns: int = 1) -> Array:
    """(2 * pairs, columns) weights, each pair nearly v and -v: float16 rounds them differently."""
    v = random.uniform(0.5, 2, (pairs, columns))
    other = -v * (1 + 2e-4 * random.normal(size=v.shape))
    return np.stack([v, other], 1).reshape(2 * pairs, columns).astype(np.float32)


def overflow(seed: int = 0, n: int = 300) -> Planted:
    """Gemm gives A and s - A, both beyond 65504; CumSum, float32 anyway, makes A and s of them.

    ONNX Runtime's CPU computes in float32 and may hide it; with true rounding it is inf - inf.
    """
    g = _Graph(seed)
    inputs = g.random.normal(size=(n, 8)).astype(np.float32)
    g.add("Relu", "relu", g.add("MatMul", "first", "x", g.normal("w1", 8, 8, scale=0.4)))
    large = np.float16(np.abs(g.random.normal(size=(8, 1))) * 1e4)
    other = np.float16(256 * g.random.normal(size=(8, 1)) - large)  # A and s - A, as float16 holds
    g.store("w2", np.hstack([large, other]))
    g.add("Gemm", "large", "relu", "w2", g.store("b2", [6e4, -6e4]))
    g.add("CumSum", "sums", "large", g.store("axis", 1, np.int64))
    ends = [g.store(name, [number], np.int64) for name, number in (("one", 1), ("two", 2))]
    g.add("Slice", "small", "sums", *ends, "one")
    g.add("MatMul", "output", "small", g.store("w3", [[2.0**-7]]))
    return Planted(g.model(8), inputs, "the Gemm that overflows alone", frozenset({"large"}))


def last_layer(seed: int = 0, n: int = 400) -> Planted:
    """Whole numbers until the last layer, whose weights cancel."""
    g = _Graph(seed)
    inputs = _pairs(g.random, n, 8)
    order = np.eye(16)[g.random.permutation(16)]
    g.add("MatMul", "first", "x", g.store("w1", order))
    g.add("Abs", "size", "first")
    g.add("Neg", "negative", "size")
    g.add("Where", "back", g.add("Less", "less", "first", g.store("zero", 0)), "negative", "size")
    g.add("Gemm", "output", "back", g.store("w2", order.T @ _cancelling(g.random, 8)),
          g.store("b2", [0.3]))  # fmt: skip
    return Planted(g.model(16), inputs, "the last layer alone", frozenset({"output"}))


def together(seed: int = 0, n: int = 300) -> Planted:
    """One layer gives values beyond 65504 and the next makes them small: between them is infinity."""
    g = _Graph(seed)
    inputs = g.random.normal(size=(n, 16)).astype(np.float32)
    g.add("Tanh", "tanh", g.add("MatMul", "first", "x", g.normal("w1", 16, 16, scale=0.3)))
    g.add("MatMul", "grow", "tanh", g.normal("w2", 16, 16, scale=1.5e4))
    g.add("MatMul", "shrink", "grow", g.normal("w3", 16, 16, scale=1e-5))
    g.add("Relu", "relu", "shrink")
    g.add("MatMul", "output", "relu", g.normal("w4", 16, 1))
    return Planted(g.model(16), inputs, "two layers, neither alone", frozenset({"grow", "shrink"}))


def shared_weight(seed: int = 0, n: int = 400) -> Planted:
    """One weight for two products: of whole numbers, where it cancels, and of small ones."""
    g = _Graph(seed)
    inputs = _pairs(g.random, n, 8)
    g.store("w", _cancelling(g.random, 8, 4))
    g.add("MatMul", "matters", "x", "w")
    g.add("Mul", "scaled", "x", g.store("factor", [2.0**-10]))
    g.add("MatMul", "idle", "scaled", "w")
    g.add("Add", "sum", "matters", "idle")
    g.add("MatMul", "output", "sum", g.normal("last", 4, 1))
    return Planted(
        g.model(16), inputs, "one of the two that share a weight", frozenset({"matters"})
    )


def many_operators(seed: int = 0, n: int = 300) -> Planted:
    """Residual, BatchNormalization, Resize, LayerNormalization, attention and an If.

    The first convolution's weights cancel on pixels of about 1000, whole numbers.
    """
    g = _Graph(seed)
    base = g.random.integers(900, 1101, (n, 1, 1, 1)) + g.random.integers(-3, 4, (n, 3, 4, 4))
    inputs = base.repeat(2, 2).repeat(2, 3).astype(np.float32)
    w = g.random.normal(size=(4, 3, 3, 3))
    g.store("w1", w - w.mean((1, 2, 3), keepdims=True))
    g.add("Conv", "conv", "x", "w1")
    _normalise(g, "norm", "conv", g.random.uniform(0.8, 1.2, 4), g.random.normal(size=4), np.zeros(4),
               np.full(4, 100.0))  # fmt: skip
    g.add("Relu", "relu", "norm")
    g.add("Conv", "conv2", "relu", g.normal("w2", 4, 4, 3, 3, scale=0.15), pads=[1] * 4)
    g.add("Add", "residual", "conv2", "relu")
    g.add("Resize", "resize", "residual", "", g.store("scales", [1, 1, 0.5, 0.5]), mode="linear")
    g.add("Reshape", "tokens", "resize", g.store("shape", [0, 4, 9], np.int64))
    g.add("LayerNormalization", "layer_norm", "tokens", g.store("ones", np.ones(9)))
    g.add("MatMul", "q", "layer_norm", g.normal("wq", 9, 9, scale=0.3))
    g.add("Transpose", "k", "layer_norm", perm=[0, 2, 1])
    g.add("Softmax", "attention", g.add("MatMul", "scores", "q", "k"))
    g.add("MatMul", "mixed", "attention", "tokens")
    g.add("ReduceMax", "most", "x", keepdims=0)
    g.add("Greater", "bright", "most", g.store("level", 50.0))
    g.store("t", g.random.uniform(0.5, 2, 9))
    then, otherwise = (
        helper.make_graph(
            [helper.make_node(operator, ["mixed", "t"], [name], name=name)], f"branch_{name}", [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 9])],
        )
        for operator, name in (("Mul", "times"), ("Add", "plus"))
    )  # fmt: skip
    g.add("If", "choice", "bright", then_branch=then, else_branch=otherwise)
    g.add("Flatten", "flat", "choice")
    g.add("Gemm", "output", "flat", g.normal("w3", 36, 1), g.store("b3", [-1.0]))
    return Planted(g.model(3, 8, 8), inputs, "the first convolution alone", frozenset({"conv"}))


def deep(
    nodes: int = 200, culprits: tuple[float, ...] = (0.3, 0.8), seed: int = 0, n: int = 1000
) -> Planted:
    """About `nodes` nodes: residual blocks of 8 channels on 3x96x96.

    `culprits`: how far into the graph stands a second convolution of a block whose weights are near
    float16's smallest value (its input is large, and its BatchNormalization makes up for it).
    """
    g = _Graph(seed)
    blocks, c = max(1, (nodes - 6) // 7), 8
    bad = {min(blocks - 1, int(share * blocks)) for share in culprits}
    tints = g.random.normal(size=(n, 3, 6, 6)).repeat(16, 2).repeat(16, 3)
    inputs = (tints + 0.1 * g.random.normal(size=(n, 3, 96, 96))).astype(np.float32)
    now = torch.from_numpy(inputs[:16])
    last, now = _layer(g, "stem", "x", now, c, 0.2, stride=2)
    now = now.relu()
    g.add("Relu", "stem_relu", last)
    last = "stem_relu"
    for i in range(blocks):
        large, tiny = (4e3, 2e-7) if i in bad else (1.0, 0.12)
        b = f"block{i}_"
        middle, inner = _layer(g, b + "conv1", last, now, c, 0.12, gamma=large)
        g.add("Relu", b + "relu1", middle)
        middle, inner = _layer(g, b + "conv2", b + "relu1", inner.relu(), c, tiny, gamma=0.4)
        g.add("Add", b + "add", middle, last)
        last, now = g.add("Relu", b + "relu2", b + "add"), (now + inner).relu()
    g.add("GlobalAveragePool", "pool", last)
    g.add("Flatten", "flat", "pool")
    g.add("Gemm", "output", "flat", g.normal("last", c, 1), g.store("bias", [0.1]))
    kept = frozenset(f"block{i}_conv2" for i in bad)
    return Planted(g.model(3, 96, 96), inputs, "the convolutions with tiny weights", kept)


def _layer(
    g: _Graph, name: str, source: str, now: torch.Tensor, c: int, scale: float,
    gamma: float = 1.0, stride: int = 1,
) -> tuple[str, torch.Tensor]:  # fmt: skip
    """A convolution and a BatchNormalization with the statistics of `now`, and what they give."""
    w = torch.from_numpy(scale * g.random.normal(size=(c, now.shape[1], 3, 3))).float()
    g.store(name + "_w", w.numpy())
    g.add("Conv", name, source, name + "_w", strides=[stride] * 2, pads=[1] * 4)
    given = functional.conv2d(now, w, stride=stride, padding=1)
    var, mean = torch.var_mean(given, (0, 2, 3))
    stored = [
        gamma * torch.ones(c),
        0.1 * gamma * torch.from_numpy(g.random.normal(size=c)).float(),
    ]
    _normalise(g, name + "_norm", name, *(one.numpy() for one in (*stored, mean, var)))
    return name + "_norm", functional.batch_norm(given, mean, var, *stored, eps=1e-7)


def _normalise(g: _Graph, name: str, source: str, *parts: object) -> None:
    """parts: scale, shift, mean, variance, each (channels,)."""
    stored = [g.store(f"{name}_{i}", values) for i, values in enumerate(parts)]
    g.add("BatchNormalization", name, source, *stored, epsilon=1e-7)
