"""Talking to a Triton server: batches over HTTP and gRPC, many requests in flight, its own counters.

Arrays are sent as they are, nothing is cast, and no request is ever sent a second time. What goes
wrong is a click.ClickException with Triton's words.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from numpy.typing import NDArray

from scripts.data.samples import Batch
from scripts.files import relative
from scripts.triton.server import Server

# gRPC has nothing to do in a process that is forked to start a server, and would say so.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

Run = Callable[[Batch], NDArray[Any]]
Send = Callable[[bytes], Awaitable[bytes]]  # an encoded request to an encoded answer
SECONDS = 120.0  # for one answer: the first on a GPU may have to choose algorithms
DYING = 2.0  # seconds from a broken connection until the process behind it has surely ended
HTTP_LIMIT = 64 << 20  # bytes
HEADER_LENGTH = "Inference-Header-Content-Length"
# Messages of any size; gRPC's own second attempts are off.
CHANNEL = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1),
           ("grpc.enable_retries", 0)]  # fmt: skip


@dataclass(frozen=True)
class Model:
    """What the server says of a model that is loaded."""

    name: str
    backend: str
    ranks: dict[str, int]  # of each input, without the batch
    output: str  # the one that every converted model has


def read_model(server: Server, name: str) -> Model:
    """Raises click.ClickException unless the model has one output."""
    with grpc_client(server) as client, failures(server, name, "its configuration"):
        config = client.get_model_config(name, client_timeout=SECONDS).config
    outputs = [one.name for one in config.output]
    if len(outputs) != 1:
        raise click.ClickException(
            f"{name} in Triton has the outputs {', '.join(outputs)}, and one is needed."
        )
    ranks = {one.name: len(one.dims) for one in config.input}
    return Model(name, config.backend or config.platform, ranks, outputs[0])


@contextmanager
def grpc_client(server: Server) -> Iterator[Any]:
    """tritonclient's own, for messages of any size and one attempt each."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(server.grpc, channel_args=CHANNEL)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def open_grpc(server: Server, name: str) -> Iterator[Run]:
    """A function from a batch to the raw output, over gRPC."""
    import tritonclient.grpc as triton

    model = read_model(server, name)
    asked = [triton.InferRequestedOutput(model.output)]
    with grpc_client(server) as client:

        def run(batch: Batch) -> NDArray[Any]:
            inputs = to_inputs(triton.InferInput, model.ranks, batch)
            with failures(server, name, f"a batch of {length(batch)} over gRPC"):
                told = client.infer(name, inputs, outputs=asked, client_timeout=SECONDS)
            return _output(told, model, length(batch))

        yield run


@contextmanager
def open_http(server: Server, name: str) -> Iterator[Run]:
    """The same over one HTTP connection.

    tritonclient writes and reads the bodies. Its own connection would send a request again when the
    server closes it; that of the standard library does not.
    """
    from http.client import HTTPConnection

    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    model = read_model(server, name)
    asked = [InferRequestedOutput(model.output, binary_data=True)]
    connection = HTTPConnection(server.http, timeout=SECONDS)

    def run(batch: Batch) -> NDArray[Any]:
        what = f"a batch of {length(batch)} over HTTP"
        inputs = to_inputs(InferInput, model.ranks, batch)
        body, header = InferenceServerClient.generate_request_body(inputs, asked)
        with failures(server, name, what, len(body)):
            headers = {HEADER_LENGTH: str(header)}
            connection.request("POST", f"/v2/models/{name}/infer", body, headers)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            words = _error(content) or answer.reason
            raise refusal(server, name, what, words, str(answer.status), len(body))
        header = int(answer.headers.get(HEADER_LENGTH, len(content)))
        told = InferenceServerClient.parse_response_body(content, header_length=header)
        return _output(told, model, length(batch))

    try:
        yield run
    finally:
        connection.close()


async def connect(
    server: Server, name: str
) -> tuple[Send, Callable[[], Coroutine[Any, Any, None]]]:
    """(what sends an encoded request in the running event loop, what closes the connection)."""
    import grpc.aio  # type: ignore[import-untyped]

    # Counted, and never counted down: with its last channel gRPC 1.67 ends the thread that waits for
    # answers, and now and then waits for that for ever.
    grpc.aio.init_grpc_aio()
    channel = grpc.aio.insecure_channel(server.grpc, options=CHANNEL)
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # bytes both ways

    async def send(request: bytes) -> bytes:
        with failures(server, name, "one of several requests in flight over gRPC"):
            return await call(request, timeout=SECONDS)

    return send, channel.close


async def together(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; when one fails, end the others and raise its error."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def encode(model: Model, batch: Batch) -> bytes:
    """A gRPC request for the model's output."""
    from tritonclient.grpc import InferInput, service_pb2

    request = service_pb2.ModelInferRequest(model_name=model.name)
    for one in to_inputs(InferInput, model.ranks, batch):
        request.inputs.append(one._get_tensor())
        request.raw_input_contents.append(one._get_content())
    request.outputs.add(name=model.output)
    return bytes(request.SerializeToString())


def decode(model: Model, answer: bytes, count: int) -> NDArray[Any]:
    """The raw output in a gRPC answer for `count` samples."""
    from tritonclient.grpc import InferResult, service_pb2

    return _output(InferResult(service_pb2.ModelInferResponse.FromString(answer)), model, count)


def length(batch: Batch) -> int:
    """How many samples a batch holds."""
    return len(next(iter(batch.values())))


def to_inputs(make: Any, ranks: dict[str, int], batch: Batch) -> list[Any]:
    """tritonclient's InferInput of either protocol, with the types that the arrays have."""
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, array in batch.items():
        if array.ndim == 1:  # one number per sample: Triton's shape has an axis of one for it
            array = array.reshape(len(array), *[1] * ranks.get(name, 0))
        one = make(name, list(array.shape), np_to_triton_dtype(array.dtype))
        inputs.append(one.set_data_from_numpy(array))
    return inputs


def _output(told: Any, model: Model, count: int) -> NDArray[Any]:
    """The output: a row of numbers for each sample, or it could be no verdict."""
    output = told.as_numpy(model.output)
    if output is None or output.dtype.kind not in "biuf" or output.shape[:1] != (count,):
        found = "nothing" if output is None else f"{output.dtype} of shape {output.shape}"
        raise click.ClickException(
            f"{model.name} in Triton answers a batch of {count} with {found} as {model.output!r}; "
            "a row of numbers for each sample is needed."
        )
    return output


def _error(content: bytes) -> str:
    """The words in {"error": "..."}, or all there are."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace")


@contextmanager
def failures(server: Server, name: str, what: str, size: int = 0) -> Iterator[None]:
    """Turn what fails on the way to the server and back into a sentence; `size`: bytes over HTTP."""
    from http.client import HTTPException

    import grpc
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except InferenceServerException as error:
        raise refusal(server, name, what, error.message(), str(error.status()), size) from None
    except grpc.RpcError as error:
        raise refusal(server, name, what, error.details(), str(error.code()), size) from None
    except TimeoutError:
        raise refusal(server, name, what, "", "DEADLINE_EXCEEDED", size) from None
    except (OSError, HTTPException) as error:
        words = str(error) or type(error).__name__
        raise refusal(server, name, what, words, "UNAVAILABLE", size) from None


def refusal(
    server: Server, name: str, what: str, words: str | None, status: str, size: int = 0
) -> click.ClickException:
    """The error to raise for a request without an answer: Triton's words, its last where it died."""
    until = time.monotonic() + DYING
    while "UNAVAILABLE" in status and time.monotonic() < until:  # a broken connection, often
        server.check()
        time.sleep(0.02)
    server.check()
    late = "DEADLINE_EXCEEDED" in status
    told = (
        f"no answer within {SECONDS:g} seconds"
        if late
        else f'"{(words or status).strip().rstrip(".")}"'
    )
    advice = (
        f" The body has {size / 2**20:.0f} MiB, and Triton takes {HTTP_LIMIT >> 20} MiB over HTTP "
        "unless --http-max-input-size says more: lower max_batch in case.toml."
    )
    return click.ClickException(
        f"{name} in Triton, {what}: {told}.{advice if size > HTTP_LIMIT and not late else ''} "
        f"Its log is {relative(server.log)}."
    )
