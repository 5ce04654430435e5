"""Fine-tune a model on captions: encoder, connector and decoder together (paper section 4).

Reads the training split, learns a tokenizer from its texts, minimises the caption loss (at tiny
scale that of text tasks too, and before it that of words in single frames), and keeps the modules
with the best validation CIDEr. A run that was killed goes on at its last saved step and ends with
the same weights. `train.sweep` runs a grid, each point in a process and a checkpoint folder of its
own.

    python -m train.finetune
    python -m train.finetune train.max_steps=200 seed=1
    python -m train.finetune 'train.components={visual.clip: frozen, decoder: lora}'
    torchrun --nproc_per_node 2 -m train.finetune [train.shard=true train.optimiser=adamw …]
    python -m train.finetune --multirun train.learning_rate=1e-3,1e-4 \\
        'checkpoint.folder=${paths.work}/checkpoints/rate-${train.learning_rate}'
"""

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.training.workers import data_parallel, threads_of


@entry("finetune")
@data_parallel("train.finetune")
def main(cfg: Any) -> None:
    import torch
    from accelerate.utils import set_seed
    from tqdm import tqdm

    from atom_repro.checkpoints.checkpoint import Checkpoint, starting_checkpoint
    from atom_repro.device.machine import this_machine
    from atom_repro.evaluation.validation import validation_cider
    from atom_repro.models.generation import GenerationSettings
    from atom_repro.records.record import Run
    from atom_repro.records.stage import Stage
    from atom_repro.report.console import summary
    from atom_repro.study.plan import planned_only
    from atom_repro.training import processes
    from atom_repro.training.data import training_data
    from atom_repro.training.disk import training_bytes
    from atom_repro.training.image_batches import image_steps
    from atom_repro.training.resume import TrainingState
    from atom_repro.training.settings import require_sensible
    from atom_repro.training.trainer import Trainer

    # What is trained, on what; nothing to do if this very run is on record.
    train, settings = cfg.train, config.to_dict(cfg)
    require_sensible(train, cfg.scale.name)
    model, dataset = config.build(cfg.model), config.build(cfg.dataset)
    start = starting_checkpoint(train.start, model, cfg.scale.name)
    written = partial(training_bytes, model, dataset, train, cfg.scale.train_clips)
    if planned_only("finetune", settings, this_machine(), writes=written):
        return
    on_images = image_steps(train, model) > 0
    accelerator = processes.make_accelerator(train, unused_parameters=on_images)
    device, is_main = processes.device_name(accelerator.device), accelerator.is_main_process
    bars = {"disable": not is_main, "mininterval": 1}
    with accelerator.main_process_first(), tqdm(desc="videos", unit="clip", **bars) as bar:
        dataset.prepare(lambda at, total: (setattr(bar, "total", total), bar.update(at - bar.n)))
    checkpoint = Checkpoint.of(cfg, model, dataset)
    inputs = {"dataset": dataset.fingerprint, "device": device}
    inputs |= {"start": start.weights()} if start else {}
    stage = Stage.of(
        "finetune", __file__, settings, this_machine(),
        inputs=inputs, weights="training", device=device,
    )  # fmt: skip
    if (done := stage.existing_record()) and checkpoint.has_weights(done.data["weights"]):
        accelerator.print(f"finetune: unchanged, {done.folder}")
        return

    # Data: candidate frames of every clip in a mapped file, texts as ids.
    torch.set_num_threads(threads_of(train, accelerator.num_processes))
    set_seed(cfg.seed)
    with accelerator.main_process_first(), tqdm(desc="decode", unit="clip", **bars) as bar:
        data = training_data(
            model, dataset, train, start=start, augmentation=config.build(cfg.augmentation),
            frames=Path(cfg.paths.work) / "frames", seed=cfg.seed,
            processes=processes.process_group(accelerator), progress=bar.update,
        )  # fmt: skip
    accelerator.print(data.remark, end="")

    # Network, optimiser, schedule; then the state of an interrupted run.
    trainer = Trainer(accelerator, model, data, train, start=start)
    state = TrainingState(checkpoint, stage.key, trainer, is_writer=is_main)
    step = state.begin(fresh=cfg.force, wait=accelerator.wait_for_everyone)
    recording = stage.recording() if is_main else nullcontext(Run(stage.key, "training"))
    progress = tqdm(total=trainer.steps, initial=step, desc="train", unit="step", **bars)
    with recording as run, progress as bar:
        run.samples = state.curve
        trainer.measured_peak.start()
        while step < trainer.steps:
            losses = trainer.step(step)
            step += 1
            state.log(step=step, **losses)
            if trainer.validates(step):
                trainer.measured_peak.stop()
                began = time.perf_counter()
                whole = trainer.full_network()
                if is_main:
                    cider = validation_cider(whole, data, GenerationSettings(**cfg.generation))
                    state.record_validation(step, cider, whole, data.tokenizer, since=began)
            if step % train.checkpoint_every == 0 or step == trainer.steps:
                state.save(step)
            bar.set_postfix_str(state.progress(losses), refresh=False)
            bar.update()
        run.weights = state.best["weights"]
        run.values |= state.values() | trainer.values()
    state.close()
    if is_main:
        print(f"finetune: modules in {checkpoint.folder}{state.moved}\n{summary(run.folder)}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
