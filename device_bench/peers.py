"""Our engine beside other software on the same modules: encoder, prefill and steps, interleaved.

Each piece of software has a process of its own and the same random weights. Every round calls each
of them once for each shape, in an order drawn anew, and reads memory once; the first round is a
warm-up. What is missing or fails is a value of the record. The machine's rates are measured before
and after.

    python -m device_bench.peers
    python -m device_bench.peers model.encoder.layers=4 model.decoder.layers=4 rounds=20
    python -m device_bench.peers 'only=[executorch_int8,torch_fp32]' 'parts=[decoder]'
"""

import random
import shutil
import time
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("peers")
def main(cfg: Any) -> None:
    import torch
    from tqdm import tqdm

    from atom_repro.checkpoints.random_weights import RANDOM_WEIGHTS_LABEL
    from atom_repro.device.limits import measure_rates, read_memory
    from atom_repro.device.machine import this_machine
    from atom_repro.engines.eager import EagerEngine
    from atom_repro.engines.workers import RemoteModule, Workers
    from atom_repro.peers.peer import Shape, open_timed, relative_error, step_weights
    from atom_repro.records.stage import Stage
    from atom_repro.report.console import summary
    from atom_repro.study.plan import planned_only

    model, settings = config.build(cfg.model), config.to_dict(cfg)
    if unknown := sorted(set(cfg.only) - set(cfg.peers)):
        raise AtomError(f"only: there is no peer {unknown[0]}; known: {', '.join(cfg.peers)}")
    names = [name for name in cfg.peers if not cfg.only or name in cfg.only]
    if planned_only("peers", settings, this_machine()):
        return
    stage = Stage.of(
        "peers", __file__, settings, this_machine(),
        inputs={}, weights=RANDOM_WEIGHTS_LABEL, protocol=f"peers/{model.name}",
    )  # fmt: skip
    if stage.unchanged(f"peers {model.name}"):
        return

    # What is timed, by the module it belongs to.
    shapes = {"encoder": [Shape("encode", "forward")], "decoder": [
        Shape("prefill", "prefill", prefix=cfg.prefix),
        *(Shape(f"step_{clips}x{beams}", "step", cfg.prefix, cfg.allocated, clips, beams)
          for clips, beams in cfg.batches),
    ]}  # fmt: skip
    device, kernels = config.build(cfg.device), EagerEngine().matmul_kernels()
    folder, order = Path(cfg.paths.work) / "peers", random.Random(cfg.seed)
    torch.set_num_threads(cfg.threads)

    with stage.recording() as run:
        before = measure_rates(device, cfg.limits_s, kernels)
        read_bytes, read = read_memory(device)
        run.values |= {"failures": {}, "open_s": {}, "errors": {}}
        for part in cfg.parts:
            # One after the other, so that memory holds one conversion at a time.
            opened, workers = {}, Workers(int)
            for name in tqdm(names, desc=f"open {part}"):
                peer = config.build(cfg.peers[name])
                arguments = (peer, model, part, shapes[part], folder / name, cfg.threads)
                try:
                    opened[name] = RemoteModule.load(workers, open_timed, *arguments)
                    run.values["open_s"][f"{name}/{part}"] = opened[name].ask("seconds_to_open")
                except (AtomError, MemoryError) as error:
                    run.values["failures"][f"{name}/{part}"] = " ".join(str(error).split())[:300]
                    tqdm.write(f"{name} {part}: {run.values['failures'][f'{name}/{part}']}")
            calls = [(name, shape.name) for name in opened for shape in shapes[part]]
            for round_ in tqdm(range(cfg.rounds + 1), desc=f"time {part}"):
                start = time.perf_counter()
                read()
                run.samples.append(
                    {"kind": "read", "part": part, "round": round_, "warmup": round_ == 0,
                     "seconds": time.perf_counter() - start}
                )  # fmt: skip
                for name, shape in order.sample(calls, len(calls)):
                    seconds = opened[name](shape)
                    run.samples.append(
                        {"kind": "call", "peer": name, "shape": shape, "round": round_,
                         "warmup": round_ == 0, "seconds": seconds}
                    )  # fmt: skip
            # That all of them compute the same: how far from fp32 PyTorch, if that is among them.
            for shape in shapes[part]:
                outputs = {name: one.ask("outputs", shape.name) for name, one in opened.items()}
                for name, output in outputs.items():
                    error = relative_error(output, outputs.get("torch_fp32"))
                    run.values["errors"][f"{name}/{shape.name}"] = error
            for one in opened.values():
                one.release()
            workers.stop()
        after = measure_rates(device, cfg.limits_s, kernels)
        run.values |= {
            "model": model.name,
            "precisions": {name: config.build(cfg.peers[name]).precision for name in names},
            "read_bytes": read_bytes,
            "step_weights": step_weights(model),
            "threads": cfg.threads,
            "limits_before": before.values,
            "limits_after": after.values,
        }
        shutil.rmtree(folder, ignore_errors=True)
    print(summary(run.folder))


if __name__ == "__main__":
    main()
