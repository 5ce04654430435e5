"""Data-parallel training on the cores of one computer, by processes that the command starts itself.

Threads of one process meet at a barrier in every operator, dozens of times in a layer, and a core
that other work takes for a moment holds all of them up. Processes of few threads meet once in a
step, when gradients are averaged (DDP over gloo), so they use the second core better and suffer
less beside other work. The command is the process of rank 0; the others run the same command with
the variables that `torchrun` sets. A training that `torchrun` started starts none, nor does one on
a GPU.
"""

import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import AtomError
from atom_repro.study.processes import die_with_parent

_STOP_S = 20.0  # for a worker that has nothing left to do
_ENDING_S = 3.0  # for one whose connections are closed


def data_parallel(module: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Decorator of a training command's main: starts the other `train.workers` beside it.

    Args:
        module: that `python -m` runs.
    """

    def decorate(main: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(main)
        def started(cfg: Any) -> None:
            from hydra.core.hydra_config import HydraConfig

            count = 1 if cfg.dry_run else worker_count(cfg.train)
            overrides = list(HydraConfig.get().overrides.task) if count > 1 else []
            with _workers(module, overrides, count, threads_of(cfg.train, count)):
                main(cfg)

        return started

    return decorate


def worker_count(settings: TrainConfig) -> int:
    """Processes of a training: at most `train.workers`, so many that they share its rows evenly.

    One where `torchrun` has started some, or a GPU does the work.

    Raises:
        AtomError: fewer than one is asked for.
    """
    if settings.workers < 1:
        raise AtomError(f"train.workers={settings.workers} is below 1, the command itself")
    if settings.workers == 1 or "WORLD_SIZE" in os.environ:
        return 1
    from atom_repro.training.processes import accelerated_device

    if accelerated_device() != "cpu":
        return 1
    rows = (settings.batch_size, settings.text_batch_size, settings.text_questions)
    return max(n for n in range(1, settings.workers + 1) if not any(r % n for r in rows))


def threads_of(settings: TrainConfig, processes: int) -> int:
    """Threads of each process of this computer."""
    return max(1, settings.threads // processes)


@contextmanager
def _workers(module: str, overrides: Sequence[str], count: int, threads: int) -> Iterator[None]:
    """Ranks 1 to `count` - 1 as child processes, and the variables of rank 0 in this one.

    Args:
        threads: of each process; accelerate sets them to one, with a warning, if nobody has.

    Raises:
        AtomError: one of them failed, by which this one failed too; has its last line.
    """
    if count == 1:
        yield
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
    }  # fmt: skip
    os.environ |= {**shared, "RANK": "0", "LOCAL_RANK": "0"}
    # Else gloo takes the interface of this computer's name, which a firewall may close.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    children: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
    with ExitStack() as files:
        try:
            for rank in range(1, count):
                said = files.enter_context(tempfile.TemporaryFile())
                child = subprocess.Popen(
                    [sys.executable, "-m", module, *overrides],
                    env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.DEVNULL, stderr=said,
                    preexec_fn=functools.partial(die_with_parent, os.getpid()),
                )  # fmt: skip
                children.append((child, said))
            yield
            for child, _ in children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_STOP_S)
        except RuntimeError as error:  # of a collective call whose other side is gone
            for rank, (child, stderr) in enumerate(children, 1):
                with suppress(subprocess.TimeoutExpired):  # its connections close before it ends
                    child.wait(_ENDING_S)
                if child.returncode:
                    raise _failure(rank, child.returncode, stderr) from error
            raise
        finally:
            for child, _ in children:
                child.kill()
                child.wait()
            for name in (*shared, "RANK", "LOCAL_RANK"):
                os.environ.pop(name, None)


def _failure(rank: int, status: int, stderr: IO[bytes]) -> AtomError:
    """What to say of a worker that failed."""
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").strip().splitlines()
    if status == -signal.SIGKILL:
        why = "was killed, most likely for lack of memory"
    else:
        why = f"ended with status {status}: {lines[-1] if lines else 'it said nothing'}"
    return AtomError(
        f"the training's process of rank {rank} {why}; the same command goes on, with "
        "train.workers=1 in one process"
    )
