"""Run one pipeline on a folder of videos and write its result as a page (appendices A, B).

Captions every 10 s window once and keeps them in an index beside your other work, so that the
next prompt on the same videos only embeds, ranks and writes. Ctrl-C, a full disk or too little
memory lose nothing that was captioned; the same command goes on.

    python -m eval.pipeline videos=DIR prompt="first the beach, then the night sky"
    python -m eval.pipeline pipeline=retrieval videos=DIR prompt="two boats at night"
    python -m eval.pipeline pipeline=questions videos=DIR prompt="what color is the ball"
    python -m eval.pipeline pipeline=localisation videos=DIR prompt="a bird flies up"
    python -m eval.pipeline pipeline=summary videos=DIR
"""

from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("pipeline", prose=("prompt", "videos", "index", "output"))
def main(cfg: Any) -> None:
    videos = Path(cfg.videos).expanduser()
    prompt = cfg.prompt.strip()
    if not cfg.videos or not videos.is_dir():
        problem = "is a file" if videos.is_file() else "is no folder"
        raise AtomError(f"videos={cfg.videos} {problem}; name the folder that holds the videos")
    pipeline = config.build(cfg.pipeline)
    if not prompt and pipeline.name != "summary":
        raise AtomError(f'pipeline={pipeline.name} needs prompt="…"; see --help for examples')

    from tqdm import tqdm

    from atom_repro.pipelines import result_folder
    from atom_repro.pipelines.clip_index import ClipIndex, IndexProvenance
    from atom_repro.pipelines.result_folder import weights_notice
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup
    from atom_repro.runtime.timeline import waterfall

    # The modules, and what their weights can say anything about.
    setup, settings = Setup.of(cfg), config.to_dict(cfg)
    model, precision = setup.model, setup.quantiser.recipe
    setup.prepare_modules(for_quality=False)
    notice = weights_notice(setup.weights, setup.dataset.name)
    print(notice)

    # One runtime, one resident decoder; captions into the index, then the task.
    work = Path(cfg.paths.work)
    provenance = IndexProvenance(
        model=setup.model_name,
        weights=setup.weights,
        precision=precision,
        prompt=model.prompt,
        generation=settings["generation"],
        embedder=cfg.embedder,
    )
    arm = Arm(residency=cfg.residency, schedule=cfg.schedule, **settings["runtime"])
    index_file = Path(cfg.index) if cfg.index else work / "indexes" / provenance.file_name(videos)
    with (
        setup.session(arm) as runtime,
        ClipIndex.open(index_file, provenance) as index,
    ):
        with tqdm(desc="caption", unit="clip", mininterval=1) as bar:
            done = index.update(
                runtime,
                videos,
                lambda at, total: (setattr(bar, "total", total), bar.update(at - bar.n)),
            )
        captioned = index.captioned_clips(videos)
        print(
            f"{done.captioned} clips captioned, {len(captioned)} in the index "
            f"({done.unchanged} videos unchanged), {len(captioned.failures)} without a caption"
        )
        broken = [f"{f.video_id}: {f.detail}" for f in captioned.failures]
        for line in broken:
            print(f"! {line}")
        if not len(captioned):
            raise AtomError(f"{videos}: no clip has a caption, so there is nothing to work on")
        reply = pipeline.task.respond(runtime, captioned, prompt or "all", "prompt")
        seconds = waterfall(runtime.timeline.spans(), 0.0, runtime.timeline.now())

    # What came of it, as a folder.
    parent = Path(cfg.output) if cfg.output else work / "output"
    folder = result_folder.folder_for(parent, pipeline.name, prompt)
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=100, desc="write", unit="%", mininterval=1, delay=1) as bar:
        delivery = pipeline.task.deliver(
            reply, folder, lambda share: bar.update(round(100 * share) - bar.n)
        )
    page = result_folder.write(
        folder,
        title=pipeline.name,
        prompt=prompt or "all",
        delivery=delivery,
        notes=[notice, *broken],
        about={
            "weights": setup.weights,
            "model": setup.model_name,
            "precision": precision,
            "device": setup.device.name,
            "arm": arm.name,
            "broken": broken,
            "stages_s": seconds.stages,
            "overlap_s": seconds.overlap_s,
            "end_to_end_s": seconds.end_to_end_s,
        },
    )
    spent = ", ".join(f"{name} {s:.2f} s" for name, s in seconds.stages.items() if s >= 0.005)
    print(f"{spent}, less overlap {seconds.overlap_s:.2f} s: {seconds.end_to_end_s:.2f} s in all")
    print(f"{delivery.summary}\n{page}")


if __name__ == "__main__":
    main()
