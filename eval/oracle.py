"""The human oracle: what people's captions give as captions and as a text index, without a video.

Captioning: one person's caption against the others', a consensus, floors (beside Table 1).
Retrieval: the text index made of human captions in several ways (beside Tables 2 and 10), recall
by gallery size, and the bytes of a text index (appendix B). A protocol whose annotation files are
missing is skipped, and said so; `python -m eval.data_check` says where to get them.

    ATOM_DATA=/path/to/data python -m eval.oracle
    python -m eval.oracle only=[msrvtt/ret-1ka] datasets.msrvtt.annotations=/path/to/msrvtt
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("oracle")
def main(cfg: Any) -> None:
    plain = config.plain(cfg)
    named = {node["name"] for group in ("retrieval", "caption") for node in plain[group].values()}
    unknown = [name for name in cfg.only if name not in named]
    if unknown:
        raise AtomError(f"only=[{unknown[0]}] is no protocol of this command: {sorted(named)}")

    people = config.build(cfg.captioner)
    datasets = {name: config.build(node) for name, node in cfg.datasets.items()}
    embedding = _Embedding(cfg.embedder)
    studies = {"retrieval": _retrieval, "caption": _caption}
    found = 0
    for stage, group in (("oracle_retrieval", "retrieval"), ("oracle_caption", "caption")):
        for name, node in cfg[group].items():
            if cfg.only and node.name not in cfg.only:
                continue
            protocol = config.build(node)
            source = _source(datasets, protocol)
            dataset = datasets[source]
            try:
                dataset.prepare()
                clips = protocol.select(dataset)
            except AtomError as error:
                print(f"{stage} {protocol.name}: skipped, {error}")
                continue
            found += 1
            study = partial(studies[group], cfg, people, clips, dataset, embedding)
            settings = _settings(plain, node=plain[group][name], dataset=plain["datasets"][source])
            _recorded(cfg, settings, stage, protocol, dataset, embedding, study)
    if not found:
        raise AtomError(
            "no protocol has its annotation files; `python -m eval.data_check` lists them"
        )


def _recorded(
    cfg: Any,
    settings: dict[str, Any],
    stage: str,
    protocol: Any,
    dataset: Any,
    embedding: "_Embedding",
    study: Callable[[], Any],
) -> None:
    """Run a study unless a record of exactly it is there."""
    from atom_repro.device.machine import this_machine
    from atom_repro.records.record import find, recording, stage_key

    machine, results = this_machine(), Path(cfg.paths.results)
    weights = embedding.label if stage == "oracle_retrieval" else "none"
    inputs = {"dataset": dataset.fingerprint, "weights": weights}
    key = stage_key(stage, Path(__file__), settings, inputs)
    done = find(results, machine, stage, key)
    if done and not cfg.force:
        print(f"{stage} {protocol.name}: unchanged, {done.folder}")
        return
    with recording(
        results,
        machine,
        stage=stage,
        key=key,
        config=settings,
        inputs=inputs,
        weights=weights,
        protocol=protocol.name,
    ) as run:
        made = study()
        run.values |= {"precision": f"human/{protocol.name}", **made.values}
        run.samples += made.samples
    metric = "r1" if stage == "oracle_retrieval" else "cider"
    for row, values in made.values["rows"].items():
        v = values[metric]
        print(f"{stage} {protocol.name}: {row}: {metric} {v['mean']:.1f} "
              f"({v['low']:.1f} to {v['high']:.1f})")  # fmt: skip


def _retrieval(cfg: Any, people: Any, clips: Any, dataset: Any, embedding: "_Embedding") -> Any:
    from atom_repro.evaluation.human_captions.retrieval import retrieval_study

    return retrieval_study(clips, people, embedding.embed, draws=cfg.bootstrap_draws, seed=cfg.seed)


def _caption(cfg: Any, people: Any, clips: Any, dataset: Any, embedding: "_Embedding") -> Any:
    from tqdm import tqdm

    from atom_repro.evaluation.human_captions.captioning import caption_study
    from atom_repro.metrics.java import find_java

    try:
        training = {c.video_id: c.references for c in dataset.clips("train")}
    except AtomError as error:
        training = {}
        print(f"oracle_caption: no constant sentence ({error})")
    with tqdm(desc=f"caption {dataset.name}", unit="row", mininterval=1) as bar:
        return caption_study(
            clips,
            training,
            people,
            draws=cfg.bootstrap_draws,
            seed=cfg.seed,
            java=find_java(cfg.java or None),
            progress=lambda _: bar.update(),
        )


class _Embedding:
    """The text embedder, loaded when first needed and shared by all protocols."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._embed: Any = None

    @property
    def label(self) -> str:
        from atom_repro.models.text_embedder import source_files
        from atom_repro.records.provenance import file_hash

        return f"released:{file_hash(source_files(self._source)[0])[:16]}"

    @property
    def embed(self) -> Any:
        if self._embed is None:
            from tqdm import tqdm

            from atom_repro.evaluation.human_captions.captioner import Remembered
            from atom_repro.models.text_embedder import load_text_embedder

            bar = tqdm(desc="embed", unit="text", mininterval=1)
            self._embed = Remembered(load_text_embedder(self._source), bar.update)
        return self._embed


def _source(datasets: dict[str, Any], protocol: Any) -> str:
    """Which of the configured data sets a protocol is about."""
    for key, dataset in datasets.items():
        if dataset.name == protocol.dataset:
            return key
    raise AtomError(f"protocol {protocol.name} needs the data set {protocol.dataset}")


def _settings(
    plain: dict[str, Any], node: dict[str, Any], dataset: dict[str, Any]
) -> dict[str, Any]:
    """What decides one study, and so names its record: its own protocol and data set, and not
    where the data lie, as its hash is among the inputs."""
    kept = ("paths", "captioner", "embedder", "bootstrap_draws", "seed")
    return {
        "scale": {"name": "paper"},
        "protocol": node,
        "dataset": {k: v for k, v in dataset.items() if k not in ("annotations", "videos")},
        **{k: plain[k] for k in kept},
    }


if __name__ == "__main__":
    main()
