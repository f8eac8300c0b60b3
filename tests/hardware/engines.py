"""TensorRT engines built through polygraphy: trtexec does not come with the Python packages."""

from pathlib import Path

from scripts.case.read_case import Case
from scripts.files import writing
from scripts.graphs.marked import quiet


def build(case: Case, model: Path, out: Path) -> None:
    """An engine for batches 1 to the case's largest: strongly typed, TF32 off, with the detail that
    the proof of precision reads. As scripts/backends/tensorrt/build_engine.py asks trtexec for it."""
    quiet()
    import tensorrt
    from polygraphy.backend.trt import (
        CreateConfig,
        EngineBytesFromNetwork,
        NetworkFromOnnxPath,
        Profile,
    )

    profile = Profile()
    for one in case.inputs:
        largest = (case.max_batch, *one.shape)
        profile.add(one.name, min=(1, *one.shape), opt=largest, max=largest)
    network = NetworkFromOnnxPath(str(model), strongly_typed=True)
    detailed = tensorrt.ProfilingVerbosity.DETAILED
    config = CreateConfig(profiles=[profile], tf32=False, profiling_verbosity=detailed)
    with writing(out) as temporary:
        temporary.write_bytes(bytes(EngineBytesFromNetwork(network, config)()))
