"""A session on the C++ runner: its job written, run by whoever can, its results read.

What measures and records knows the protocol of hosts only, so a session of the runner is measured
like one of the Python runtime.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

from atom_repro.datatypes import AtomError, Clip
from atom_repro.hosts.host import Pipeline, Trace
from atom_repro.hosts.runner import PER_MODEL, RESULTS, RunsOnRunner, read_results, write_job
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

Result = TypeVar("Result")


def session_trace(
    setup: Setup,
    pipeline: Pipeline[Result],
    clips: Sequence[Clip],
    arm: Arm,
    job: Path,
    run: Callable[[], None],
    *,
    packed: str = "",
    workspaces: str = PER_MODEL,
) -> Trace[Result]:
    """The trace of one session.

    Args:
        job: the folder of its job.
        run: runs the job; its results lie in the folder then.
        packed, workspaces: see `write_job`.

    Raises:
        AtomError: the runner cannot run the session.
        MemoryError: too little memory.
    """
    if not isinstance(pipeline, RunsOnRunner):
        raise AtomError("the runner answers prompts: pipeline=retrieval or pipeline=assembly")
    nonce = write_job(
        job, setup, clips, [arm], pipeline=pipeline.for_runner(), packed=packed,
        workspaces=workspaces,
    )  # fmt: skip
    run()
    (trace,) = read_results(job / RESULTS, nonce, 1)
    results = cast(Sequence[Result], pipeline.from_runner(trace.answers))
    return Trace(results, trace.spans, None, trace.memory_peak, {"memory": trace.memory})
