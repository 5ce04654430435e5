"""Fine-tune mPLUG2+ on captions: encoder, connector and decoder together (paper section 4).

Reads the training split, learns a tokenizer from its captions, minimises the caption loss, and
keeps the modules with the best validation CIDEr. A run that was killed goes on at its last saved
step and ends with the same weights.

    python -m train.finetune
    python -m train.finetune train.max_steps=200 seed=1
"""

import time
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("finetune")
def main(cfg: Any) -> None:
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from tqdm import tqdm

    from atom_repro.data.batches import CaptionBatches, FrameBank, token_rarity
    from atom_repro.device.machine import this_machine
    from atom_repro.engines.checkpoints import Checkpoint
    from atom_repro.engines.training_state import TrainingState
    from atom_repro.models.captioning_model import CaptioningModel
    from atom_repro.models.optimisation import adamw, warmup_cosine
    from atom_repro.models.tokenizer import Tokenizer
    from atom_repro.records.record import find, recording, stage_key

    # What is trained, on what; nothing to do if this very run is on record.
    tuning = cfg.train
    model, dataset = config.build(cfg.model), config.build(cfg.dataset)
    with tqdm(desc="videos", unit="clip", mininterval=1) as bar:
        dataset.prepare(lambda done, total: (bar.reset(total), bar.update(done)))
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    checkpoint = Checkpoint.of(
        work=cfg.paths.work, model=model, dataset=dataset.name, scale=cfg.scale.name, seed=cfg.seed
    )
    inputs = {"dataset": dataset.fingerprint}
    key = stage_key("finetune", Path(__file__), settings, inputs)
    done = find(results, machine, "finetune", key)
    if done and not cfg.force and checkpoint.holds(done.data["weights"]):
        print(f"finetune: unchanged, {done.folder}")
        return

    # Data: candidate frames of every clip in memory, captions as ids.
    clips = dataset.clips("train")
    validation = dataset.clips("validation")[: tuning.validation_clips]
    texts = (r for c in clips for r in c.references)
    tokenizer = Tokenizer.train(texts, model.decoder.vocabulary, model.specials)
    with tqdm(total=len(clips), desc="decode", unit="clip", mininterval=1) as bar:
        bank = FrameBank(
            clips,
            frames=model.encoder.frames,
            per_segment=tuning.candidates_per_segment,
            size=model.encoder.image_size,
            folder=Path(cfg.paths.work) / "frames",
            name=dataset.fingerprint,
            progress=bar.update,
        )
    captions = [[[*tokenizer.encode(r), tokenizer.end_id] for r in c.references] for c in clips]
    batches = CaptionBatches(
        bank,
        captions,
        batch_size=tuning.batch_size,
        captions_per_clip=tuning.captions_per_clip,
        shift=tuning.shift,
        pad_id=tokenizer.pad_id,
        seed=cfg.seed,
    )

    # Model, optimiser, schedule; then whatever an interrupted run left of them.
    torch.set_num_threads(tuning.threads)
    set_seed(cfg.seed)
    accelerator = Accelerator(
        mixed_precision="bf16" if tuning.precision == "bf16" else "no",
        gradient_accumulation_steps=tuning.accumulate,
    )
    special = (tokenizer.begin_id, tokenizer.end_id, tokenizer.pad_id)
    network = CaptioningModel(
        model,
        tokenizer,
        word_weight=tuning.word_weight,
        rarity=token_rarity(captions, model.decoder.vocabulary, special),
    )
    optimiser = adamw(network, learning_rate=tuning.learning_rate, weight_decay=tuning.weight_decay)
    schedule = warmup_cosine(
        optimiser, warmup_steps=tuning.warmup_steps, max_steps=tuning.max_steps
    )
    network, optimiser, schedule = accelerator.prepare(network, optimiser, schedule)
    state = TrainingState(checkpoint, key, accelerator.unwrap_model(network), optimiser, schedule)
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
        ) as run,
        tqdm(total=tuning.max_steps, initial=step, desc="train", unit="step", mininterval=2) as bar,
    ):
        run.samples = state.curve
        while step < tuning.max_steps:
            began = time.perf_counter()
            caption_loss = 0.0
            network.train()
            for micro in range(tuning.accumulate):
                frames, ids = batches(step * tuning.accumulate + micro)
                with accelerator.accumulate(network):
                    loss, captions_part = network(
                        torch.from_numpy(frames).to(accelerator.device),
                        torch.from_numpy(ids).to(accelerator.device),
                    )
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(network.parameters(), tuning.clip_norm)
                    optimiser.step()
                    schedule.step()
                    optimiser.zero_grad()
                caption_loss += captions_part.item() / tuning.accumulate
            step += 1
            state.log(step=step, caption_loss=caption_loss, step_s=time.perf_counter() - began)
            if step % tuning.validation_every == 0 or step == tuning.max_steps:
                began = time.perf_counter()
                cider = _validation_cider(cfg, model, tokenizer, state.network, validation)
                state.keep_if_best(step, cider, tokenizer)
                state.log(
                    step=step, validation_cider=cider, validation_s=time.perf_counter() - began
                )
            if step % tuning.checkpoint_every == 0 or step == tuning.max_steps:
                state.save(step)
            best = max(state.best["cider"], 0)
            bar.set_postfix_str(f"loss {caption_loss:.2f}, best CIDEr {best:.0f}", refresh=False)
            bar.update()
        run.weights = state.best["weights"]
        run.values |= {
            "validation_cider": state.best["cider"],
            "best_step": state.best["step"],
            "train_s": sum(line.get("step_s", 0.0) for line in state.curve),
            "validation_s": sum(line.get("validation_s", 0.0) for line in state.curve),
            "parameters": sum(p.numel() for p in state.network.parameters()),
        }
    state.close()
    print(f"finetune: validation CIDEr {state.best['cider']:.1f}, modules in {checkpoint.folder}")


def _validation_cider(cfg: Any, model: Any, tokenizer: Any, network: Any, clips: Any) -> float:
    from atom_repro.engines.eager import DecoderModule, EncoderModule
    from atom_repro.metrics.caption import score_captions
    from atom_repro.models.generation import GenerationSettings
    from atom_repro.pipelines.captioning import caption_clips

    network.eval()
    batches = caption_clips(
        EncoderModule(network.encoder, model, "training"),
        DecoderModule(network.decoder, model, tokenizer, "training"),
        clips,
        prompt=model.prompt,
        settings=GenerationSettings(**cfg.generation),
        batch_size=50,
    )
    said = {p.video_id: p.caption for batch in batches for p in batch}
    references = {c.video_id: c.references for c in clips}
    return float(score_captions(said, references, metrics=("cider",)).corpus["cider"])


if __name__ == "__main__":
    main()
