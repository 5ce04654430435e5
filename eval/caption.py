"""Caption the test clips and score the captions (paper section 5.2, Table 1).

BLEU@4, ROUGE-L, METEOR and CIDEr against the references; beside them what a captioner scores
that never looks (floors) and what people score against each other; where the data set knows the
truth, accuracy by attribute. With quant=int8, the difference to the fp32 captions of the same
weights, with its interval.

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
    from atom_repro.evaluation.captioning import existing_file, kept_captions, read_predictions
    from atom_repro.metrics.attributes import attribute_accuracy
    from atom_repro.metrics.bootstrap import paired_bleu_difference, paired_difference
    from atom_repro.metrics.caption import leave_one_out, score_captions
    from atom_repro.metrics.floors import (
        constant_predictions,
        constant_sentence,
        shuffled_predictions,
    )
    from atom_repro.metrics.java import find_java
    from atom_repro.records.provenance import file_hash
    from atom_repro.records.record import counterpart, find, recording, stage_key
    from atom_repro.runtime.setup import Subject
    from atom_repro.video.sampling import scan

    # The clips of a named protocol, and the modules in the wanted precision.
    java = find_java(cfg.java or None)
    subject, protocol = Subject.of(cfg), config.build(cfg.protocol)
    dataset, precision = subject.dataset, subject.quantiser.name
    dataset.prepare()
    checked = scan(protocol.select(dataset), cfg.on_bad)
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    if cfg.from_predictions:
        weights, quantised = "unknown (from_predictions)", {}
        predicted = file_hash(existing_file(cfg.from_predictions))
        inputs = {"dataset": dataset.fingerprint, "predictions": predicted}
    else:
        quantised = subject.make_modules(judged=True)
        weights, inputs = subject.weights, subject.inputs

    key = stage_key("caption", Path(__file__), settings, inputs)
    done = find(results, machine, "caption", key)
    if done and not cfg.force:
        print(f"caption {precision}: unchanged, {done.folder}")
        return

    with recording(
        results,
        machine,
        stage="caption",
        key=key,
        config=settings,
        inputs=inputs,
        weights=weights,
        protocol=protocol.name,
        device=subject.device.name,
    ) as run:
        # Captions: from a file, or by the model.
        if cfg.from_predictions:
            predictions = read_predictions(Path(cfg.from_predictions), checked.clips)
        else:
            with tqdm(total=len(checked.clips), desc="caption", unit="clip", mininterval=1) as bar:
                predictions = kept_captions(
                    checked.clips,
                    subject,
                    batch_size=cfg.batch_size,
                    folder=Path(cfg.paths.work) / "captions",
                    progress=bar.update,
                )

        # Scores of the captions, and of captioners that saw nothing or are people.
        references = {c.video_id: c.references for c in checked.clips}
        said = {p.video_id: p.caption for p in predictions}
        scores = score_captions(said, references, java=java)
        training = {c.video_id: c.references for c in dataset.clips("train")}
        constant = constant_predictions(constant_sentence(training), references)
        rows = {
            "floor_constant_sentence": score_captions(constant, references, java=java),
            "floor_next_video": score_captions(
                shuffled_predictions(references), references, java=java
            ),
            "people_leave_one_out": leave_one_out(references, java=java),
        }
        run.values |= {
            "precision": precision,
            "videos": len(checked.clips),
            "status_counts": dict(checked.counts),
            "label": checked.label,
            "empty_captions": scores.empty,
            **scores.corpus,
            **{name: dict(row.corpus) for name, row in rows.items()},
            "quantised": quantised,
        }

        # Parts of the set: seen and held-out combinations, and the truth by attribute.
        groups = [str(c.meta.get("combination", "all")) for c in checked.clips]
        for group in sorted(set(groups) - {"all"}):
            part = [c.video_id for c, g in zip(checked.clips, groups, strict=True) if g == group]
            run.values[group] = dict(
                score_captions(
                    {v: said[v] for v in part}, {v: references[v] for v in part}, java=java
                ).corpus
            )
        if hasattr(dataset, "stated"):
            accuracy = attribute_accuracy(
                [dataset.stated(p.caption) for p in predictions],
                [dataset.truth(c) for c in checked.clips],
                groups,
            )
            run.values["attribute_accuracy"] = {
                group: {name: [a.correct, a.total] for name, a in by_name.items()}
                for group, by_name in accuracy.items()
            }

        # Quantised against fp32, clip by clip.
        fp32 = counterpart(
            results,
            machine,
            "caption",
            config=settings,
            inputs=inputs,
            quant={"_target_": "atom_repro.quant.none.build"},
        )
        if precision != "fp32" and fp32:
            before = {line["video_id"]: line for line in fp32.samples()}
            order = [before[v] for v in scores.ids]
            draws = {"draws": cfg.bootstrap_draws, "seed": cfg.seed}
            differences = {
                name: paired_difference(
                    scores.per_clip[name], [line[name] for line in order], **draws
                )
                for name in ("rouge_l", "meteor", "cider")
            }
            differences["bleu_4"] = paired_bleu_difference(
                scores.bleu_statistics, [line["bleu_statistics"] for line in order], **draws
            )
            run.values["minus_fp32"] = {
                "record": fp32.run_id,
                "identical_captions": sum(said[v] == before[v]["caption"] for v in scores.ids),
                **{
                    n: {"mean": d.mean, "low": d.low, "high": d.high}
                    for n, d in differences.items()
                },
            }
        for i, (clip, prediction) in enumerate(zip(checked.clips, predictions, strict=True)):
            run.samples.append(
                {
                    "video_id": clip.video_id,
                    "caption": prediction.caption,
                    "token_ids": prediction.token_ids,
                    "log_prob": prediction.log_prob,
                    **{n: float(scores.per_clip[n][i]) for n in ("rouge_l", "meteor", "cider")},
                    "bleu_statistics": scores.bleu_statistics[i].tolist(),
                }
            )
    floor = rows["floor_constant_sentence"].corpus["cider"]
    people = rows["people_leave_one_out"].corpus["cider"]
    print(
        f"caption {precision}: CIDEr {scores.corpus['cider']:.1f} "
        f"(constant sentence {floor:.1f}, people {people:.1f}), {len(said)} clips"
    )


if __name__ == "__main__":
    main()
