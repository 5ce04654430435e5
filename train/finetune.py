"""Fine-tune a model on captions: encoder, connector and decoder together (paper section 4).

Reads the training split, learns a tokenizer from its texts, minimises the caption loss (and, at
tiny scale, that of text tasks), and keeps the modules with the best validation CIDEr. A run that
was killed goes on at its last saved step and ends with the same weights. Processes share out the
batches, and one of them validates, saves and records.

    python -m train.finetune
    python -m train.finetune train.max_steps=200 seed=1
    python -m train.finetune 'train.components={visual.clip: frozen, decoder: lora}'
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m train.finetune
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m train.finetune train.shard=true
    python -m train.finetune --multirun train.learning_rate=1e-3,1e-4 \\
        'checkpoint.folder=${paths.work}/checkpoints/rate-${train.learning_rate}'

(`accelerate launch --cpu --num_processes 2` starts one process where there is no MPI; the record
says how many there were.) Hydra's --multirun runs one training after another in this process; each
needs a checkpoint folder of its own. `train.sweep` runs a grid, each point in a process and folder
of its own.
"""

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("finetune")
def main(cfg: Any) -> None:
    import torch
    from accelerate.utils import set_seed
    from tqdm import tqdm

    from atom_repro.checkpoints.checkpoint import Checkpoint, starting_point, starting_tokenizer
    from atom_repro.device.machine import this_machine
    from atom_repro.evaluation.validation import validation_cider
    from atom_repro.models.generation import GenerationSettings
    from atom_repro.records.record import Run, find, recording, stage_key
    from atom_repro.training.data import training_data
    from atom_repro.training.network import training_network, training_optimiser
    from atom_repro.training.optimisation import schedule_named, set_rates
    from atom_repro.training.processes import (
        accelerated_device,
        accelerator_for,
        device_name,
        mean_over_processes,
        on_device,
        processes,
        training_precision,
    )
    from atom_repro.training.resume import TrainingState
    from atom_repro.training.sharding import WholeNetwork, process_mesh, shard
    from atom_repro.training.step_memory import MeasuredPeak, require_step_memory, step_memory

    # What is trained, on what; nothing to do if this very run is on record.
    tuning = cfg.train
    if not tuning.epochs and tuning.max_steps < 1:
        raise AtomError(
            f"train.max_steps={tuning.max_steps} and train.epochs is not set: there is nothing to "
            f"train at scale={cfg.scale.name}; set one of them"
        )
    model, dataset = config.build(cfg.model), config.build(cfg.dataset)
    start = starting_point(tuning.start, model, cfg.scale.name)
    precision = training_precision(tuning.precision, accelerated_device())
    accelerator = accelerator_for(precision=precision, accumulate=tuning.accumulate)
    leads = accelerator.is_main_process
    bars = {"disable": not leads, "mininterval": 1}
    with (
        accelerator.main_process_first(),
        tqdm(desc="videos", unit="clip", **bars) as bar,
    ):
        dataset.prepare(
            lambda done, total: (setattr(bar, "total", total), bar.update(done - bar.n))
        )
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    checkpoint = Checkpoint.of(cfg, model, dataset)
    inputs = {"dataset": dataset.fingerprint, "device": device_name(accelerator.device)}
    if start:
        inputs["start"] = start.weights()
    key = stage_key("finetune", Path(__file__), settings, inputs)
    done = find(results, machine, "finetune", key)
    if done and not cfg.force and checkpoint.holds(done.data["weights"]):
        accelerator.print(f"finetune: unchanged, {done.folder}")
        return

    # Data: candidate frames of every clip in a mapped file, texts as ids.
    torch.set_num_threads(tuning.threads)
    set_seed(cfg.seed)
    with (
        accelerator.main_process_first(),
        tqdm(desc="decode", unit="clip", **bars) as bar,
    ):
        data = training_data(
            model,
            dataset,
            tuning,
            tokenizer=starting_tokenizer(start, model) if start else None,
            augmentation=config.build(cfg.augmentation),
            frames=Path(cfg.paths.work) / "frames",
            seed=cfg.seed,
            processes=processes(accelerator),
            progress=bar.update,
        )
    epoch_steps = max(1, data.epoch // tuning.accumulate)
    steps = tuning.epochs * epoch_steps if tuning.epochs else tuning.max_steps
    validation_every = tuning.validation_every or epoch_steps

    # Model, optimiser, schedule; then whatever an interrupted run left of them.
    make_network = partial(training_network, model, data, tuning)
    needed = step_memory(
        make_network,
        data.large_step(),
        precision=precision,
        processes=accelerator.num_processes,
        shard=tuning.shard,
        device=accelerator.device.type,
    )
    require_step_memory(needed, accelerator.device)
    accelerator.wait_for_everyone()  # all of them have looked before one takes its memory
    measured = MeasuredPeak(accelerator.device)
    network = make_network(start)
    if tuning.shard:
        shard(network, process_mesh(accelerator.device, accelerator.num_processes))
    optimiser = training_optimiser(network, tuning)
    schedule = schedule_named(
        tuning.schedule,
        warmup=tuning.warmup_steps,
        floor=tuning.floor_learning_rate,
        epoch=data.epoch,
        accumulate=tuning.accumulate,
        steps=steps,
        quirk=tuning.epoch0_quirk,
    )
    # In "evaluation mode" accelerate leaves the network to us, and makes no DDP of it.
    network = accelerator.prepare_model(network, evaluation_mode=tuning.shard)
    optimiser = accelerator.prepare_optimizer(optimiser)
    plain = accelerator.unwrap_model(network)
    whole = WholeNetwork(plain, make_network if leads else None)
    state = TrainingState(checkpoint, key, plain, optimiser.optimizer, writes=leads)
    step = state.resume(fresh=cfg.force)
    accelerator.wait_for_everyone()
    state.begin(step)

    with (
        recording(
            results,
            machine,
            stage="finetune",
            key=key,
            config=settings,
            inputs=inputs,
            weights="training",
            device=device_name(accelerator.device),
        )
        if leads
        else nullcontext(Run(key, "training")) as run,
        tqdm(total=steps, initial=step, desc="train", unit="step", **bars) as bar,
    ):
        run.samples = state.curve
        measured.start()
        while step < steps:
            began = time.perf_counter()
            losses: dict[str, float] = {}
            network.train()
            set_rates(optimiser, schedule, step)
            for part in data.steps(step):
                with accelerator.accumulate(network):
                    loss, parts = network(on_device(part, accelerator.device))
                    accelerator.backward(loss)
                    if accelerator.sync_gradients and tuning.clip_norm:
                        accelerator.clip_grad_norm_(network.parameters(), tuning.clip_norm)
                    optimiser.step()
                    optimiser.zero_grad()
                for name, value in parts.items():
                    losses[name] = losses.get(name, 0.0) + value.item() / tuning.accumulate
            step += 1
            measured.step_done()
            losses = mean_over_processes(accelerator, losses)
            state.log(step=step, **losses, step_s=time.perf_counter() - began)
            if step % validation_every == 0 or step == steps:
                measured.stop()
                began = time.perf_counter()
                trained = whole.refreshed()
                if leads:
                    cider = validation_cider(
                        trained,
                        data.tokenizer,
                        data.validation,
                        GenerationSettings(**cfg.generation),
                    )
                    state.keep_if_best(step, cider, trained, data.tokenizer)
                    took = time.perf_counter() - began
                    state.log(step=step, validation_cider=cider, validation_s=took)
            if step % tuning.checkpoint_every == 0 or step == steps:
                state.save(step)
            best, said = max(state.best["cider"], 0), losses["caption_loss"]
            bar.set_postfix_str(f"loss {said:.2f}, best CIDEr {best:.0f}", refresh=False)
            bar.update()
        measured.stop()
        run.weights = state.best["weights"]
        run.values |= {
            "validation_cider": state.best["cider"],
            "best_step": state.best["step"],
            "epoch_steps": epoch_steps,
            "precision": precision,
            "processes": accelerator.num_processes,
            "step_memory_estimated_bytes": needed.peak + needed.whole,  # of this process
            "step_memory_measured_bytes": measured.bytes,
            "trained_parameters": sum(p.numel() for p in plain.parameters() if p.requires_grad),
            "train_s": state.total_s("step_s"),
            "validation_s": state.total_s("validation_s"),
            "parameters": sum(p.numel() for p in plain.parameters()),
            "sharded": tuning.shard,
        }
    state.close()
    accelerator.print(
        f"finetune: validation CIDEr {state.best['cider']:.1f}, modules in {checkpoint.folder}"
    )
    accelerator.end_training()


if __name__ == "__main__":
    main()
