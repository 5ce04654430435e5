"""Find each query's video through the captions (paper section 5.2, Table 2; appendix B).

The index of a video is its caption's sentence embedding; a query is embedded by the same
text embedder and videos are ranked by cosine. Beside the model's row: the index of true captions
(what the captions cost), of the next video's caption, and chance.

    python -m eval.retrieval
    python -m eval.retrieval quant=int8
"""

from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("retrieval")
def main(cfg: Any) -> None:
    from tqdm import tqdm

    from atom_repro.device.machine import this_machine
    from atom_repro.evaluation.captioning import kept_captions
    from atom_repro.evaluation.retrieval import search
    from atom_repro.metrics.bootstrap import paired_difference
    from atom_repro.metrics.floors import shuffled_predictions
    from atom_repro.models.text_embedder import load_text_embedder
    from atom_repro.records.record import counterpart, find, recording, stage_key
    from atom_repro.runtime.setup import Subject
    from atom_repro.video.sampling import scan

    # The gallery and queries of a named protocol, and the modules in the wanted precision.
    subject, protocol = Subject.of(cfg), config.build(cfg.protocol)
    dataset, precision = subject.dataset, subject.quantiser.name
    dataset.prepare()
    checked = scan(protocol.select(dataset), cfg.on_bad)
    settings, results, machine = config.plain(cfg), Path(cfg.paths.results), this_machine()
    subject.make_modules(judged=True)
    inputs = subject.inputs
    key = stage_key("retrieval", Path(__file__), settings, inputs)
    done = find(results, machine, "retrieval", key)
    if done and not cfg.force:
        print(f"retrieval {precision}: unchanged, {done.folder}")
        return

    with recording(
        results,
        machine,
        stage="retrieval",
        key=key,
        config=settings,
        inputs=inputs,
        weights=subject.weights,
        protocol=protocol.name,
        device=subject.device.name,
    ) as run:
        # Captions are the index; the caption stage's journal serves if it is there.
        with tqdm(total=len(checked.clips), desc="caption", unit="clip", mininterval=1) as bar:
            predictions = kept_captions(
                checked.clips,
                subject,
                batch_size=cfg.batch_size,
                folder=Path(cfg.paths.work) / "captions",
                progress=bar.update,
            )
        embedder = load_text_embedder(cfg.embedder)
        captions = {p.video_id: p.caption for p in predictions}
        found = search(embedder, captions, checked.clips)
        references = {c.video_id: c.references for c in checked.clips}
        rows = {
            "model": found,
            "ceiling_true_caption": search(
                embedder, {v: r[0] for v, r in references.items()}, checked.clips
            ),
            "floor_next_video": search(embedder, shuffled_predictions(references), checked.clips),
        }
        run.values |= {
            "precision": precision,
            "embedder": f"{cfg.embedder}/fp32",
            "videos": len(checked.clips),
            "status_counts": dict(checked.counts),
            "label": checked.label,
            "chance_r1": 100 / len(checked.clips),
            **{name: row.to_dict() for name, row in rows.items()},
        }

        # Parts of the set: the same gallery, queries of one part.
        groups = [str(c.meta.get("combination", "all")) for c in checked.clips for _ in c.queries]
        hits = {k: found.ranks.hits(k) for k in (1, 5, 10)}
        for group in sorted(set(groups) - {"all"}):
            member = [g == group for g in groups]
            run.values[group] = {f"r{k}": 100 * float(h[member].mean()) for k, h in hits.items()}

        # Quantised against fp32, query by query.
        fp32 = counterpart(
            results,
            machine,
            "retrieval",
            config=settings,
            inputs=inputs,
            quant={"_target_": "atom_repro.quant.none.build"},
        )
        run.samples += [
            {
                "query_id": query_id,
                "rank": int(rank),
                "ties": int(ties),
                **{f"r{k}": float(100 * h[i]) for k, h in hits.items()},
            }
            for i, (query_id, rank, ties) in enumerate(
                zip(found.query_ids, found.ranks.rank, found.ranks.ties, strict=True)
            )
        ]
        if precision != "fp32" and fp32:
            before = {line["query_id"]: line for line in fp32.samples()}
            run.values["minus_fp32"] = {"record": fp32.run_id}
            for k in (1, 5, 10):
                interval = paired_difference(
                    [line[f"r{k}"] for line in run.samples],
                    [before[line["query_id"]][f"r{k}"] for line in run.samples],
                    draws=cfg.bootstrap_draws,
                    seed=cfg.seed,
                )
                run.values["minus_fp32"][f"r{k}"] = {
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                }
    print(
        f"retrieval {precision}: R@1 {found.scores.micro[1].expected:.1f} "
        f"(true captions {rows['ceiling_true_caption'].scores.micro[1].expected:.1f}, chance "
        f"{100 / len(checked.clips):.1f}), {len(found.query_ids)} queries, {len(captions)} videos"
    )


if __name__ == "__main__":
    main()
