"""Runs of the runner on a device over adb: sent, started, watched, fetched, cleaned up."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from atom_repro.adb.connection import Connection, quoted
from atom_repro.adb.faults import Busy, Crashed
from atom_repro.adb.job import Job
from atom_repro.hosts.bundle import START
from atom_repro.hosts.runner import JOB, OUT_OF_MEMORY, RESULTS

FOLDER = "/data/local/tmp/atom-repro"  # nothing outside is touched


def run_on_device(
    connection: Connection,
    bundle: Path,
    job_folder: Path,
    *,
    folder: str = FOLDER,
    affinity: str = "",
    timeout_s: float = 3600.0,
    every_s: float = 0.5,
    watch: Callable[[], None] = lambda: None,
    sent: dict[str, tuple[str, str]] | None = None,
) -> None:
    """Run a job on a device; its results lie in the job's folder, as those of `run_job` do.

    Files that the device has already are not sent again, so what was cut off goes on.

    Args:
        folder: of the device.
        affinity: hexadecimal mask of the cores that it may use, as taskset takes it; empty for all.
        watch: see `Job.wait`.
        sent: see `Connection.push_missing`; of runs on this device before.

    Raises:
        DeviceError: the device failed; its `outcome` says how.
        MemoryError: too little memory.
    """
    program, job = f"{folder}/runner", f"{folder}/job"
    connection.ask(f"mkdir -p {quoted(program, job)}")
    files = [(path, f"{program}/{path.name}") for path in sorted(bundle.iterdir())]
    files += [
        (path, f"{job}/{path.name}")
        for path in sorted(job_folder.iterdir())
        if path.name != RESULTS
    ]
    total = sum(path.stat().st_size for path, _ in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="push", leave=False) as bar:
        connection.push_missing(files, bar.update, sent={} if sent is None else sent)
    connection.ask(f"cd {quoted(program)} && chmod 755 *")
    pinned = f"taskset {quoted(affinity)} " if affinity else ""
    start = f"{pinned}sh {quoted(f'{program}/{START}')} {quoted(JOB)}"
    run = _started(connection, job, f"cd .. && {start}")
    try:
        run.wait(timeout_s=timeout_s, every_s=every_s, watch=watch)
    except Crashed as error:
        if run.status() == OUT_OF_MEMORY:
            raise MemoryError(f"no memory left for the runner on {connection.serial}") from error
        raise
    connection.pull(f"{job}/run/stdout", job_folder / RESULTS)


def _started(connection: Connection, job: str, command: str) -> Job:
    """The command as a job. One of this computer's that still runs there lost its device, as only
    one command at a time has it, and is ended."""
    owner = f"{socket.gethostname()} {os.getuid()}"
    try:
        run = Job.start(connection, f"{job}/run", command)
    except Busy:
        if connection.shell(f"cat {quoted(f'{job}/owner')}").text != owner:
            raise
        Job(connection, f"{job}/run", connection.boot_id()).stop()
        run = Job.start(connection, f"{job}/run", command)
    connection.ask(f"echo {quoted(owner)} > {quoted(f'{job}/owner')}")
    return run


def clean_up(connection: Connection, folder: str = FOLDER) -> None:
    """Remove all that was sent to a device and what ran there left."""
    connection.remove(folder)
