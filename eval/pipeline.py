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

from collections.abc import Callable
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError
from atom_repro.video.folder import list_videos


@entry("pipeline", prose=("prompt", "videos", "index", "output"))
def main(cfg: Any) -> None:
    videos = Path(cfg.videos).expanduser()
    prompt = cfg.prompt.strip()
    if not cfg.videos or not videos.is_dir():
        problem = "is a file" if videos.is_file() else "is no folder"
        raise AtomError(
            f"videos={cfg.videos} {problem}; name the folder that holds the videos, as in "
            'videos=DIR prompt="two boats at night"'
        )
    if not prompt and cfg.pipeline.name != "summary":
        raise AtomError(f'pipeline={cfg.pipeline.name} needs prompt="…"; see --help for examples')
    listing = list_videos(videos)
    print(f"videos in {videos}: {len(listing.names)}; loading {cfg.model.name}", flush=True)

    from tqdm import tqdm

    from atom_repro.pipelines import result_folder
    from atom_repro.pipelines.clip_index import ClipIndex, IndexProvenance
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup
    from atom_repro.runtime.timeline import waterfall

    # Where the result goes; the modules, and what their weights can say anything about.
    work, pipeline = Path(cfg.paths.work), config.build(cfg.pipeline)
    parent = Path(cfg.output).expanduser() if cfg.output else work / "output"
    folder = result_folder.folder_for(parent, pipeline.name, prompt, videos)
    result_folder.require_writable(folder)
    setup, settings = Setup.of(cfg), config.to_dict(cfg)
    model, precision = setup.model, setup.quantiser.recipe
    setup.prepare_modules(for_quality=False)
    notice = result_folder.weights_notice(setup.weights, setup.dataset.name)
    print(notice)

    # One runtime, one resident decoder; captions into the index, then the task.
    provenance = IndexProvenance(
        model=setup.model_name, weights=setup.weights, precision=precision, prompt=model.prompt,
        generation=settings["generation"], embedder=cfg.embedder,
    )  # fmt: skip
    arm = Arm(residency=cfg.residency, schedule=cfg.schedule, **settings["runtime"])
    index_file = Path(cfg.index) if cfg.index else work / "indexes" / provenance.file_name(videos)
    with setup.session(arm) as runtime, ClipIndex.open(index_file, provenance) as index:
        bars = {"mininterval": 0.5, "leave": False}
        with (
            tqdm(desc="read", unit="B", unit_scale=True, **bars) as read,
            tqdm(desc="caption", unit="clip", **bars) as bar,
        ):
            done = index.update(
                runtime, videos, _moving(bar), looked=_moving(read), drop_missing=cfg.drop_missing
            )
        captioned = index.captioned_clips()
        faults = [*done.remarks, *index.faults()]
        print("\n".join([done.summary(captioned), *(f"! {fault}" for fault in faults)]))
        if not len(captioned):
            raise AtomError(f"{videos}: no clip has a caption, so there is nothing to work on")
        reply = pipeline.task.respond(runtime, captioned, prompt or "all", "prompt")
        seconds = waterfall(runtime.timeline.spans(), 0.0, runtime.timeline.now())

    # What came of it, as a folder.
    with tqdm(total=100, desc="write", unit="%", mininterval=1, delay=1) as bar:
        delivery = result_folder.write(
            folder,
            title=pipeline.name,
            prompt=prompt or "all",
            deliver=lambda building: pipeline.task.deliver(
                reply, building, lambda share: bar.update(round(100 * share) - bar.n)
            ),
            notes=[notice, *faults],
            about={
                "weights": setup.weights,
                "model": setup.model_name,
                "precision": precision,
                "device": setup.device.name,
                "arm": arm.name,
                "videos": str(videos.resolve()),
                "broken": faults,
                "stages_s": seconds.stages,
                "overlap_s": seconds.overlap_s,
                "end_to_end_s": seconds.end_to_end_s,
            },
        )
    print("".join(f"! {fault}\n" for fault in delivery.faults), end="")
    print(f"{delivery.summary} ({seconds.end_to_end_s:.1f} s)\n{folder / 'index.html'}")


def _moving(bar: Any) -> Callable[[int, int], None]:
    """A progress callback that moves a bar and sets its total."""
    return lambda at, total: (setattr(bar, "total", total), bar.update(at - bar.n))


if __name__ == "__main__":
    main()
