"""Human captions scored as captions and as a retrieval index, no video needed (Tables 1, 2, 10).

Captioning: one person's caption against the others', a consensus, floors (beside Table 1).
Retrieval: the text index made of human captions in several ways (beside Tables 2 and 10), recall
by gallery size, and the bytes of a text index (appendix B). A protocol whose annotation files are
missing is skipped with a message; `python -m eval.data_check` says where to get them.

    ATOM_DATA=/path/to/data python -m eval.human_captions
    python -m eval.human_captions only=[msrvtt/ret-1ka] datasets.msrvtt.annotations=/path/to/msrvtt
"""

from functools import cache
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("human_captions")
def main(cfg: Any) -> None:
    from tqdm import tqdm

    from atom_repro.device.machine import this_machine
    from atom_repro.evaluation.human_captions.captioning import caption_study
    from atom_repro.evaluation.human_captions.retrieval import retrieval_study
    from atom_repro.evaluation.human_captions.text_index import CachedEmbedder
    from atom_repro.metrics.java import find_java
    from atom_repro.models.text_embedder import load_text_embedder, weights_label
    from atom_repro.records.stage import Stage
    from atom_repro.report.console import summary
    from atom_repro.study.plan import planned_only

    # The selected protocols, and their data sets.
    settings, captioner = config.to_dict(cfg), config.build(cfg.captioner)
    protocols = [
        (group, name, config.build(node))
        for group in ("retrieval", "caption")
        for name, node in cfg[group].items()
    ]
    named = sorted({protocol.name for _, _, protocol in protocols})
    if unknown := set(cfg.only) - set(named):
        raise AtomError(f"only=[{min(unknown)}] is no protocol of this command: {named}")
    selected = [each for each in protocols if not cfg.only or each[2].name in cfg.only]
    names = [each[2].name for each in selected]
    if planned_only("human_captions", settings, this_machine(), protocols=names):
        return
    built = {source: config.build(node) for source, node in cfg.datasets.items()}
    datasets = {dataset.name: (source, dataset) for source, dataset in built.items()}

    @cache
    def embed() -> Any:  # one for all protocols, loaded for the first that searches
        bar = tqdm(desc="embed", unit="text", mininterval=1)
        return CachedEmbedder(load_text_embedder(cfg.embedder), bar.update)

    studies = 0
    for group, name, protocol in selected:
        # The clips of the protocol, by their annotations alone.
        title = f"human captions, {group}, {protocol.name}"
        source, dataset = datasets[protocol.dataset]
        try:
            dataset.prepare()
            clips = protocol.select(dataset)
        except AtomError as error:
            print(f"{title}: skipped, {error}")
            continue
        studies += 1

        # One study, named by its own protocol and data set.
        weights = weights_label(cfg.embedder) if group == "retrieval" else "none"
        stage = Stage.of(
            f"oracle_{group}",  # as records have named it from the first
            __file__,
            {
                "scale": {"name": "paper"},
                "protocol": settings[group][name],
                "dataset": config.without_paths(settings["datasets"][source]),
                **{k: settings[k] for k in _KEY_SETTINGS},
            },
            this_machine(),
            inputs={"dataset": dataset.fingerprint, "weights": weights},
            weights=weights,
            protocol=protocol.name,
        )
        if stage.unchanged(title):
            continue
        resample = {"resamples": cfg.bootstrap_draws, "seed": cfg.seed}
        with stage.recording() as run:
            if group == "retrieval":
                study = retrieval_study(clips, captioner, embed(), **resample)
            else:
                with tqdm(desc=f"caption {dataset.name}", unit="row", mininterval=1) as bar:
                    java, captions = find_java(cfg.java or None), _training_captions(dataset)
                    study = caption_study(
                        clips, captions, captioner, **resample, java=java,
                        progress=lambda _, bar=bar: bar.update(),
                    )  # fmt: skip
            run.values |= {"precision": f"human/{protocol.name}", **study.values}
            run.samples += study.samples
        print(f"{title}\n{summary(run.folder)}")
    if not studies:
        raise AtomError("no protocol has its annotations; `python -m eval.data_check` lists them")


# What decides every study, beside its protocol and its data set.
_KEY_SETTINGS = ("paths", "captioner", "embedder", "bootstrap_draws", "seed", "force")


def _training_captions(dataset: Any) -> dict[str, Any]:
    """For the constant sentence; empty where the training split is not there."""
    try:
        return {c.video_id: c.references for c in dataset.clips("train")}
    except AtomError as error:
        print(f"human captions, caption: no constant sentence ({error})")
        return {}


if __name__ == "__main__":
    main()
