"""Caption the test clips and score the captions (paper section 5.2, Table 1).

BLEU@4, ROUGE-L, METEOR and CIDEr against the references; beside them blind baselines (floors) and
human captions scored against each other; where the data set knows the truth, accuracy by attribute.
With quant=int8, the difference to the fp32 captions of the same weights, with its interval.

    python -m eval.caption
    python -m eval.caption quant=int8
    python -m eval.caption from_predictions=results/records/…/samples.jsonl   # no model needed
"""

from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("caption")
def main(cfg: Any) -> None:
    from tqdm import tqdm

    from atom_repro.device.machine import this_machine
    from atom_repro.evaluation import caption_scores
    from atom_repro.evaluation.captioning import existing_file, journaled_captions, read_predictions
    from atom_repro.metrics.caption import score_captions
    from atom_repro.metrics.java import find_java
    from atom_repro.records.provenance import file_hash
    from atom_repro.report.console import summary
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup
    from atom_repro.study.plan import planned_only
    from atom_repro.video.sampling import check_clips

    # The clips of a named protocol, and the modules in the wanted precision.
    java = find_java(cfg.java or None)
    setup, protocol = Setup.of(cfg), config.build(cfg.protocol)
    dataset, precision, settings = setup.dataset, setup.quantiser.recipe, config.to_dict(cfg)
    if cfg.from_predictions:
        predicted = file_hash(existing_file(cfg.from_predictions))
        if planned_only("caption", settings, this_machine()):
            return
    elif setup.planned_only("caption", settings, for_quality=True):
        return
    dataset.prepare()
    checked = check_clips(protocol.select(dataset), cfg.on_bad)
    print(checked.remark, end="")
    caption_scores.require_references(checked.clips)
    if cfg.from_predictions:
        inputs = {"dataset": dataset.fingerprint, "predictions": predicted}
        source = {"inputs": inputs, "weights": "unknown (from_predictions)"}
        quantised = {}
    else:
        source, quantised = {}, setup.prepare_modules(for_quality=True)
    stage = setup.stage("caption", __file__, settings, protocol.name, **source)
    if stage.unchanged(f"caption {precision}"):
        return

    with stage.recording() as run:
        # Captions: from a file, or by the model.
        if cfg.from_predictions:
            predictions = read_predictions(Path(cfg.from_predictions), checked.clips)
        else:
            arm = Arm(residency="resident", schedule="sequential", **settings["runtime"])
            with (
                tqdm(total=len(checked.clips), desc="caption", unit="clip", mininterval=1) as bar,
                setup.session(arm) as runtime,
            ):
                predictions = journaled_captions(
                    runtime,
                    checked.clips,
                    setup,
                    batch_size=cfg.batch_size,
                    folder=Path(cfg.paths.work) / "captions",
                    progress=bar.update,
                )

        # Scores of the captions, of blind baselines and of human captions.
        references = {c.video_id: c.references for c in checked.clips}
        captions = {p.video_id: p.caption for p in predictions}
        scores = score_captions(captions, references, java=java)
        training = caption_scores.training_references(dataset)
        constant = caption_scores.constant_sentence(training, java=java)
        baselines, left_out = caption_scores.baselines(references, constant, java=java)
        run.values |= {
            **setup.labels,
            "videos": len(checked.clips),
            "status_counts": dict(checked.counts),
            "label": checked.label,
            "empty_captions": scores.empty,
            "constant_sentence": constant,
            **scores.corpus,
            **{name: dict(row) for name, row in baselines.items()},
            "left_out": left_out,
            "quantised": quantised,
        }

        # Parts of the set: seen and held-out combinations, and the truth by attribute.
        run.values |= caption_scores.scores_by_group(captions, references, checked.clips, java=java)
        if hasattr(dataset, "stated"):
            run.values["attribute_accuracy"] = caption_scores.attributes_by_group(
                dataset, predictions, checked.clips
            )

        # Quantised against fp32, clip by clip.
        fp32 = stage.counterpart(quant={"_target_": "atom_repro.quant.none.build"})
        if fp32 and not setup.quantiser.is_identity:
            run.values["minus_fp32"] = caption_scores.minus_fp32(
                scores, captions, fp32, resamples=cfg.bootstrap_draws, seed=cfg.seed
            )
        run.samples += caption_scores.samples(predictions, scores)
    floor = baselines["floor_constant_sentence"]["cider"]
    of_constant = "" if floor is None else f", of {constant!r} {floor:.1f}"
    print(f"caption {precision}: CIDEr {scores.corpus['cider']:.1f}{of_constant}")
    print("\n".join([*left_out, summary(run.folder)]))


if __name__ == "__main__":
    main()
