"""What a running server takes: the seconds until it was ready, its memory, and that of its GPUs."""

import os
import re
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

PROC = Path("/proc")
GPU_MEMORY = re.compile(r"^nv_gpu_memory_used_bytes\{.*\} (\S+)$", re.MULTILINE)


def seconds_since_start(pid: int) -> float:
    """How long the process has been running, to a hundredth: of the try that succeeded, if several."""
    ticks = int(_stat(PROC / str(pid))[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(group: int, proc: Path = PROC) -> float | None:
    """Peak resident memory of the processes in a group: a server, and the stubs of its Python backend.

    Of each process the proportional set size (PSS: a page that n processes share is charged to each
    with 1/n, so that shared memory and libraries count once), and what it held at its peak beyond
    what it holds now (VmHWM - VmRSS), loading included. Pages that programs outside the group use
    too, of libraries above all, count in part; peaks at different times are added up. Where the
    kernel does not tell the PSS it is the sum of VmHWM, in which a shared page counts for each
    process; None where it does not tell that either.
    """
    total = 0
    for folder in proc.glob("[0-9]*"):
        try:
            status = _kib(folder / "status") if int(_stat(folder)[2]) == group else {}
        except (FileNotFoundError, ProcessLookupError):  # another program, which has just ended
            continue
        if "VmHWM" in status:
            try:
                total += status["VmHWM"] - status["VmRSS"] + _kib(folder / "smaps_rollup")["Pss"]
            except OSError:
                total += status["VmHWM"]
    return total * 1024 / 1e6 or None


def _stat(folder: Path) -> list[str]:
    """What /proc/<pid>/stat tells after the name: its third field and on."""
    return (
        (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    )


def _kib(path: Path) -> dict[str, int]:
    """The lines `Name:  123 kB` of a file below /proc."""
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row[2:] == ["kB"]}


def gpu_memory_mb(address: str) -> float | None:
    """Used memory of all GPUs that Triton's metrics tell of, in 10^6 bytes; None: they tell none."""
    connection = HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, HTTPException):  # started without metrics
        return None
    finally:
        connection.close()
    # 0 is what Triton says where the driver does not tell it.
    return sum(float(value) for value in GPU_MEMORY.findall(text)) / 1e6 or None
