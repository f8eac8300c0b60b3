"""Triton's own counters of a model: what it executed, in what batches, and how long that took."""

import time
from typing import Any

from scripts.triton.client import SECONDS, failures, grpc_client
from scripts.triton.server import Server

COUNTING = 2.0  # seconds from an answer until it is surely in the counters


def read_counters(server: Server, name: str) -> Any:
    """Triton's own counters of a model since it was loaded: a ModelStatistics message."""
    with grpc_client(server) as client, failures(server, name, "its statistics"):
        return client.get_inference_statistics(name, client_timeout=SECONDS).model_stats[0]


def counted(server: Server, name: str, before: Any, samples: int) -> dict[str, Any]:
    """What Triton counted since `before`, while `samples` samples were answered.

    An answer may arrive a moment before it is counted, which is waited for. Times are means over
    the requests.
    """
    until = time.monotonic() + COUNTING
    now = read_counters(server, name)
    while now.inference_count - before.inference_count < samples and time.monotonic() < until:
        time.sleep(0.02)
        now = read_counters(server, name)
    executions = now.execution_count - before.execution_count
    inferences = now.inference_count - before.inference_count
    sizes = {one.batch_size: one.compute_infer.count for one in now.batch_stats}
    for one in before.batch_stats:
        sizes[one.batch_size] -= one.compute_infer.count
    new, old = now.inference_stats, before.inference_stats
    requests = new.success.count - old.success.count
    queue = new.queue.ns - old.queue.ns
    compute = sum(
        getattr(new, part).ns - getattr(old, part).ns
        for part in ("compute_input", "compute_infer", "compute_output")
    )
    return {
        "requests": requests,
        "failed": new.fail.count - old.fail.count,
        "inferences": inferences,
        "executions": executions,
        "average_batch": inferences / max(executions, 1),
        "batch_sizes": {str(size): count for size, count in sorted(sizes.items()) if count},
        "queue_ms": queue / 1e6 / max(requests, 1),
        "compute_ms": compute / 1e6 / max(requests, 1),
    }
