"""Fine-tune a model on captions: encoder, connector and decoder together (paper section 4).

Reads the training split, learns a tokenizer from its texts, minimises the caption loss (and, at
tiny scale, that of text tasks), and keeps the modules with the best validation CIDEr. A run that
was killed goes on at its last saved step and ends with the same weights. Processes share out the
batches, and one of them validates, saves and records.

    python -m train.finetune
    python -m train.finetune train.max_steps=200 seed=1
    python -m train.finetune 'train.components={visual.clip: frozen, decoder: lora}'
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m train.finetune
    python -m train.finetune --multirun train.learning_rate=1e-3,1e-4 \\
        'checkpoint.folder=${paths.work}/checkpoints/rate-${train.learning_rate}'

(`accelerate launch --cpu --num_processes 2` starts one process where there is no MPI; the record
says how many there were.) Hydra's --multirun runs one training after another in this process; each
needs a checkpoint folder of its own. `train.sweep` runs a grid, each point in a process and folder
of its own.
"""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("finetune")
def main(cfg: Any) -> None:
    import torch
    from accelerate.utils import set_seed
    from tqdm import tqdm

    from atom_repro.device.machine import this_machine
    from atom_repro.engines.acceleration import (
        accelerator_for,
        main_process_last,
        mean_over_processes,
        on_device,
        processes,
        training_precision,
    )
    from atom_repro.engines.checkpoints import Checkpoint
    from atom_repro.engines.conversion import start_from, starting_tokenizer
    from atom_repro.engines.starting import starting_point
    from atom_repro.engines.training_data import training_data
    from atom_repro.engines.training_state import TrainingState
    from atom_repro.models.captioning_model import CaptioningModel
    from atom_repro.models.checkpointing import checkpoint_blocks
    from atom_repro.models.components import choose_trained, is_visual
    from atom_repro.models.generation import GenerationSettings
    from atom_repro.models.optimisation import adamw, parameter_groups, schedule_named, set_rates
    from atom_repro.pipelines.validation import validation_cider
    from atom_repro.records.record import Run, find, recording, stage_key

    # What is trained, on what; nothing to do if this very run is on record.
    tuning = cfg.train
    model, dataset = config.build(cfg.model), config.build(cfg.dataset)
    start = starting_point(tuning.start, model, cfg.scale.name)
    precision = training_precision(tuning.precision)
    accelerator = accelerator_for(precision=precision, accumulate=tuning.accumulate)
    leads = accelerator.is_main_process
    bars = {"disable": not leads, "mininterval": 1}
    with (
        accelerator.main_process_first(),
        tqdm(desc="videos", unit="clip", **bars) as bar,
    ):
        dataset.prepare(lambda done, total: (bar.reset(total), bar.update(done)))
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    checkpoint = Checkpoint.of(
        work=cfg.paths.work,
        model=model,
        dataset=dataset.name,
        scale=cfg.scale.name,
        seed=cfg.seed,
        folder=cfg.checkpoint.folder,
    )
    inputs = {"dataset": dataset.fingerprint}
    if start:
        inputs["start"] = start.weights()
    key = stage_key("finetune", Path(__file__), settings, inputs)
    done = find(results, machine, "finetune", key)
    if done and not cfg.force and checkpoint.holds(done.data["weights"]):
        accelerator.print(f"finetune: unchanged, {done.folder}")
        return

    # Data: candidate frames of every clip in memory, texts as ids.
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
    network = CaptioningModel(
        model,
        data.tokenizer,
        word_weight=tuning.word_weight,
        text_weight=tuning.text_weight,
        rarity=data.rarity,
    )
    if start:
        start_from(start, network)
    choose_trained(
        network, model, tuning.components, rank=tuning.lora_rank, alpha=tuning.lora_alpha
    )
    if tuning.gradient_checkpointing:
        checkpoint_blocks(network)
    optimiser = adamw(
        parameter_groups(
            dict(network.named_parameters()),
            weight_decay=tuning.weight_decay,
            decay_rule=tuning.decay_rule,
            learning_rate=tuning.learning_rate,
            visual_learning_rate=tuning.visual_learning_rate,
            is_visual=is_visual(model),
        ),
        betas=tuning.betas,
    )
    schedule = schedule_named(
        tuning.schedule,
        warmup=tuning.warmup_steps,
        floor=tuning.floor_learning_rate,
        epoch=data.epoch,
        accumulate=tuning.accumulate,
        steps=steps,
        quirk=tuning.epoch0_quirk,
    )
    network, optimiser = accelerator.prepare(network, optimiser)
    state = TrainingState(
        checkpoint, key, accelerator.unwrap_model(network), optimiser, writes=leads
    )
    with main_process_last(accelerator):
        step = state.resume(fresh=cfg.force)

    with (
        recording(
            results,
            machine,
            stage="finetune",
            key=key,
            config=settings,
            inputs=inputs,
            weights="training",
        )
        if leads
        else nullcontext(Run(key, "training")) as run,
        tqdm(total=steps, initial=step, desc="train", unit="step", **bars) as bar,
    ):
        run.samples = state.curve
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
            losses = mean_over_processes(accelerator, losses)
            state.log(step=step, **losses, step_s=time.perf_counter() - began)
            if leads and (step % validation_every == 0 or step == steps):
                began = time.perf_counter()
                cider = validation_cider(
                    state.network,
                    data.tokenizer,
                    data.validation,
                    GenerationSettings(**cfg.generation),
                )
                state.keep_if_best(step, cider, data.tokenizer)
                state.log(
                    step=step, validation_cider=cider, validation_s=time.perf_counter() - began
                )
            if step % tuning.checkpoint_every == 0 or step == steps:
                state.save(step)
            best, said = max(state.best["cider"], 0), losses["caption_loss"]
            bar.set_postfix_str(f"loss {said:.2f}, best CIDEr {best:.0f}", refresh=False)
            bar.update()
        run.weights = state.best["weights"]
        run.values |= {
            "validation_cider": state.best["cider"],
            "best_step": state.best["step"],
            "epoch_steps": epoch_steps,
            "precision": precision,
            "processes": accelerator.num_processes,
            "trained_parameters": sum(
                p.numel() for p in state.network.parameters() if p.requires_grad
            ),
            "train_s": sum(line.get("step_s", 0.0) for line in state.curve),
            "validation_s": sum(line.get("validation_s", 0.0) for line in state.curve),
            "parameters": sum(p.numel() for p in state.network.parameters()),
        }
    state.close()
    accelerator.print(
        f"finetune: validation CIDEr {state.best['cider']:.1f}, modules in {checkpoint.folder}"
    )
    accelerator.end_training()


if __name__ == "__main__":
    main()
