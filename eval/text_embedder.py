"""Score the text embedder in fp32 and under every int8 recipe (paper F.3, Tables 6 and 7).

Correlation with people on the STS-B test, bytes, and what int8 does to retrieval: MSR-VTT 1k-A with
one human caption a video as the index, drawn without the query's own sentence. The paper does not
say how it made its int8, so each recipe stands on its own.

    ATOM_DATA=/path/to/data python -m eval.text_embedder
"""

from contextlib import nullcontext
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("text_embedder")
def main(cfg: Any) -> None:
    from tqdm import tqdm

    from atom_repro.data.stsb import PROTOCOL
    from atom_repro.datatypes import AtomError
    from atom_repro.device.machine import this_machine
    from atom_repro.evaluation.text_embedder import RecipeComparison
    from atom_repro.models.text_embedder import load_text_embedder, source_files, weights_label
    from atom_repro.records.stage import Stage
    from atom_repro.report.console import summary
    from atom_repro.study.plan import planned_only

    settings = config.to_dict(cfg)
    if planned_only("text_embedder", settings, this_machine()):
        return

    # The pairs; and the gallery, if its annotations are there.
    stsb, captioner = config.build(cfg.datasets.stsb), config.build(cfg.captioner)
    msrvtt, protocol = config.build(cfg.datasets.msrvtt), config.build(cfg.retrieval)
    pairs = stsb.pairs("test")
    label = weights_label(cfg.embedder)
    inputs = {"stsb": stsb.fingerprint("test"), "weights": label}
    try:
        clips = protocol.select(msrvtt)
        inputs["msrvtt"] = msrvtt.fingerprint
    except AtomError as error:
        clips = []
        print(f"text_embedder: no retrieval ({error})")
    comparison = RecipeComparison(
        pairs,
        clips,
        galleries=captioner.draws,
        gallery_seed=captioner.seed,
        resamples=cfg.bootstrap_draws,
        seed=cfg.seed,
    )
    datasets = {name: config.without_paths(node) for name, node in settings["datasets"].items()}
    stage = Stage.of(
        "text_embedder",
        __file__,
        {**settings, "datasets": datasets, "scale": {"name": "paper"}},
        this_machine(),
        inputs=inputs,
        weights=label,
        protocol=PROTOCOL,
    )
    if stage.unchanged("text_embedder"):
        return

    with stage.recording() as run:
        # Each recipe: quantised anew, and scored.
        for name in tqdm(cfg.recipes, desc="recipes", mininterval=1):
            recipe = config.build(cfg.recipes[name])
            with getattr(recipe, "running", nullcontext)():
                embedder = load_text_embedder(cfg.embedder, batch_size=cfg.batch_size)
                recipe.quantise(embedder.module)
                comparison.add(name, recipe.name, embedder)
        weights = source_files(cfg.embedder)
        run.values |= {
            "precision": "all",
            "pairs": len(pairs),
            "queries": len(clips),
            "retrieval_protocol": protocol.name if clips else "",
            "draws": captioner.draws,
            "fp32_file_bytes": sum(w.stat().st_size for w in weights),
            "tokenizer_bytes": sum(
                p.stat().st_size
                for p in weights[0].parent.iterdir()
                if p.suffix in (".txt", ".json")
            ),
            "recipes": comparison.rows,
        }
        run.samples += comparison.samples()
    print(summary(run.folder))


if __name__ == "__main__":
    main()
