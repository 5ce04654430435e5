"""Score the decoder's scripts, answers, summaries and moments against the truth (section 3.1).

The paper's human study cannot be repeated without people; where the truth is known, order,
coverage, repetition, accuracy and overlap can be counted instead. Beside the model stand a
baseline without a decoder, a random one, and the same decoder over true captions. The last part
finds the similarity below which a search should report no match: set on validation clips, tested on
test clips.

    python -m eval.tasks
    python -m eval.tasks quant=int8
"""

from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("tasks")
def main(cfg: Any) -> None:
    from tqdm import tqdm

    from atom_repro.data.toy import truth
    from atom_repro.evaluation import tasks as study
    from atom_repro.evaluation.captioning import journaled_captions
    from atom_repro.metrics.summary import most_frequent_answers
    from atom_repro.report.console import summary
    from atom_repro.runtime.runtime import Arm
    from atom_repro.runtime.setup import Setup
    from atom_repro.video.sampling import windows_of

    # The tasks as the pipelines run them, and the modules in the wanted precision.
    setup, settings = Setup.of(cfg), config.to_dict(cfg)
    dataset, precision = setup.dataset, setup.quantiser.recipe
    assembly, answering, summaries, moments = (
        config.build(node).task
        for node in (cfg.assembly, cfg.questions, cfg.summary, cfg.localisation)
    )
    if setup.planned_only("tasks", settings, for_quality=True):
        return
    dataset.prepare()
    setup.prepare_modules(for_quality=True)
    stage = setup.stage("tasks", __file__, settings, f"{dataset.name}/tasks")
    if stage.unchanged(f"tasks {precision}"):
        return

    # The items: of test clips and long videos; validation clips set the threshold.
    test, validation = dataset.clips("test"), dataset.clips("validation")
    videos = dataset.videos()
    windows = windows_of(videos, 10.0, 5.0)
    single = truth.single_scene_clips(test)
    pool = min(cfg.pool, len(single))
    requests = truth.assembly_requests(single, count=cfg.requests, pool_size=pool, seed=cfg.seed)
    questions = truth.questions(test, per_clip=cfg.questions_a_clip, seed=cfg.seed)
    train = [q.question for q in truth.questions(dataset.clips("train"), per_clip=1, seed=cfg.seed)]
    frequent = most_frequent_answers([q.answer for q in train], [q.kind for q in train])
    events = truth.events(videos)

    arm = Arm(residency="resident", schedule="sequential", **settings["runtime"])
    with stage.recording() as run, setup.session(arm) as runtime:
        # Captions of everything, from the journal of the caption stage as far as it goes.
        count = len(test) + len(validation) + len(windows)
        captions: dict[str, str] = {}
        with tqdm(total=count, desc="caption", unit="clip", mininterval=1) as bar:
            for clips in (test, validation, windows):
                predictions = journaled_captions(
                    runtime,
                    clips,
                    setup,
                    batch_size=cfg.batch_size,
                    folder=Path(cfg.paths.work) / "captions",
                    progress=bar.update,
                )
                captions |= {p.video_id: p.caption for p in predictions}
        of_test = study.caption_sources(runtime, test, captions)
        of_windows = study.caption_sources(runtime, windows, captions)
        of_validation = study.caption_sources(runtime, validation, captions)

        # Each task, item by item.
        count = len(requests) + len(questions) + len(videos) + len(events)
        with tqdm(total=count, desc="tasks", unit="item", mininterval=1) as bar:
            options = {"seed": cfg.seed, "progress": bar.update}
            run.samples += study.scripts(runtime, assembly, requests, of_test, **options)
            run.samples += study.answers(
                runtime, answering, questions, of_test, frequent, **options
            )
            run.samples += study.summaries(
                runtime, summaries, videos, of_windows, dataset, progress=bar.update
            )
            run.samples += study.moments(runtime, moments, events, videos, of_windows, **options)

        # The threshold: chosen on validation clips, and what it does on test clips.
        options = {"pool": pool, "seed": cfg.seed}
        chosen = study.similarities(runtime, of_validation, validation, cfg.elsewhere, **options)
        tested = study.similarities(runtime, of_test, test, cfg.elsewhere, **options)
        threshold = study.best_threshold(chosen)
        run.values |= {
            **setup.labels,
            "requests": len(requests),
            "questions": len(questions),
            "videos": len(videos),
            "events": len(events),
            "pool": pool,
            "least_similarity": threshold,
        }
        if threshold is not None:
            run.values |= {
                "balanced_accuracy_validation": study.balanced_accuracy(chosen, threshold),
                "balanced_accuracy_test": study.balanced_accuracy(tested, threshold),
            }
    print(
        f"tasks {precision}: {len(requests)} scripts, {len(questions)} questions, {len(videos)} "
        f"videos, {len(events)} moments\n{summary(run.folder)}"
    )


if __name__ == "__main__":
    main()
