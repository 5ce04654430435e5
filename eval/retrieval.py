"""Text-to-video retrieval through captions (paper section 5.2, Table 2; appendix B).

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

    from atom_repro.evaluation.captioning import journaled_captions
    from atom_repro.evaluation.retrieval import (
        minus_fp32,
        recalls_by_group,
        require_gallery,
        samples,
        search,
    )  # fmt: skip
    from atom_repro.metrics.floors import shuffled_predictions
    from atom_repro.models.text_embedder import load_text_embedder
    from atom_repro.report.console import summary
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup
    from atom_repro.video.sampling import check_clips

    # The gallery and queries of a named protocol, and the modules in the wanted precision.
    setup, protocol = Setup.of(cfg), config.build(cfg.protocol)
    dataset, precision, settings = setup.dataset, setup.quantiser.recipe, config.to_dict(cfg)
    if setup.planned_only("retrieval", settings, for_quality=True):
        return
    dataset.prepare()
    checked = check_clips(protocol.select(dataset), cfg.on_bad)
    print(checked.remark, end="")
    require_gallery(checked.clips)
    setup.prepare_modules(for_quality=True)
    stage = setup.stage("retrieval", __file__, settings, protocol.name)
    if stage.unchanged(f"retrieval {precision}"):
        return

    arm = Arm(residency="resident", schedule="sequential", **settings["runtime"])
    with stage.recording() as run:
        # Captions are the index; the caption stage's journal serves if it is there.
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
        embedder = load_text_embedder(cfg.embedder)
        captions = {p.video_id: p.caption for p in predictions}
        references = {c.video_id: c.references for c in checked.clips}
        true_captions = {video: texts[0] for video, texts in references.items()}
        model = search(embedder, captions, checked.clips)
        ceiling = search(embedder, true_captions, checked.clips)
        floor = search(embedder, shuffled_predictions(references), checked.clips)
        run.values |= {
            **setup.labels,
            "embedder": f"{cfg.embedder}/fp32",
            "videos": len(checked.clips),
            "status_counts": dict(checked.counts),
            "label": checked.label,
            "chance_r1": 100 / len(checked.clips),
            "model": model.to_dict(),
            "ceiling_true_caption": ceiling.to_dict(),
            "floor_next_video": floor.to_dict(),
        }

        # Parts of the set: the same gallery, queries of one part.
        run.values |= recalls_by_group(model, checked.clips)

        # Quantised against fp32, query by query.
        run.samples += samples(model)
        fp32 = stage.counterpart(quant={"_target_": "atom_repro.quant.none.build"})
        if fp32 and not setup.quantiser.is_identity:
            run.values["minus_fp32"] = minus_fp32(
                run.samples, fp32, resamples=cfg.bootstrap_draws, seed=cfg.seed
            )
    print(
        f"retrieval {precision}: R@1 {model.scores.micro[1].expected:.1f} "
        f"(true captions {ceiling.scores.micro[1].expected:.1f}, chance "
        f"{100 / len(checked.clips):.1f}), {len(model.query_ids)} queries, {len(captions)} videos"
    )
    print(summary(run.folder))


if __name__ == "__main__":
    main()
