"""The text embedder in fp32 and in every int8 at hand (paper F.3, Tables 6 and 7).

Correlation with people on the STS-B test, bytes, and what int8 does to retrieval: MSR-VTT 1k-A with
one human caption a video as the index, drawn without the query's own sentence. The paper does not
say how it made its int8, so each recipe stands on its own.

    ATOM_DATA=/path/to/data python -m eval.text_embedder
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("text_embedder")
def main(cfg: Any) -> None:
    import numpy as np
    from tqdm import tqdm

    from atom_repro.data.stsb import PROTOCOL
    from atom_repro.datatypes import AtomError
    from atom_repro.device.machine import this_machine
    from atom_repro.evaluation.human_captions.captioner import (
        Gallery,
        Questions,
        Remembered,
        everything,
        search_people,
        without_queries,
    )
    from atom_repro.metrics.bootstrap import clustered_interval
    from atom_repro.metrics.correlation import bootstrap_pearson, pearson, spearman
    from atom_repro.models.text_embedder import load_text_embedder, saved_bytes, source_files
    from atom_repro.records.provenance import file_hash
    from atom_repro.records.record import find, recording, stage_key

    # The pairs; and the gallery, if its annotations are there.
    stsb, people = config.build(cfg.datasets.stsb), config.build(cfg.captioner)
    pairs = stsb.pairs("test")
    truth = np.array([p.score for p in pairs])
    texts = [p.first for p in pairs] + [p.second for p in pairs]
    inputs = {"stsb": stsb.fingerprint("test")}
    msrvtt, protocol = config.build(cfg.datasets.msrvtt), config.build(cfg.retrieval)
    try:
        clips = protocol.select(msrvtt)
        inputs["msrvtt"] = msrvtt.fingerprint
    except AtomError as error:
        clips = []
        print(f"text_embedder: no retrieval ({error})")
    galleries = [without_queries(clips, people.seed + d) for d in range(people.draws)]

    weights = source_files(cfg.embedder)
    label = f"released:{file_hash(weights[0])[:16]}"
    inputs["weights"] = label
    settings, machine, results = _settings(config.plain(cfg)), this_machine(), cfg.paths.results
    key = stage_key("text_embedder", Path(__file__), settings, inputs)
    done = find(Path(results), machine, "text_embedder", key)
    if done and not cfg.force:
        print(f"text_embedder: unchanged, {done.folder}")
        return

    with recording(
        Path(results),
        machine,
        stage="text_embedder",
        key=key,
        config=settings,
        inputs=inputs,
        weights=label,
        protocol=PROTOCOL,
    ) as run:
        draws = {"draws": cfg.bootstrap_draws, "seed": cfg.seed}
        cosines: dict[str, Any] = {}
        resampled: dict[str, Any] = {}
        hits: dict[str, Any] = {}
        rows: dict[str, dict[str, Any]] = {}
        for name in tqdm(cfg.recipes, desc="recipes", mininterval=1):
            recipe = config.build(cfg.recipes[name])
            with getattr(recipe, "running", nullcontext)():
                embedder = load_text_embedder(cfg.embedder, batch_size=cfg.batch_size)
                recipe.quantise(embedder.module)
                vectors = embedder(texts).numpy()
                cosines[name] = (vectors[: len(pairs)] * vectors[len(pairs) :]).sum(axis=1)
                resampled[name] = bootstrap_pearson(cosines[name], truth, **draws)
                low, high = np.quantile(resampled[name], (0.025, 0.975))
                rows[name] = {
                    "precision": recipe.name,
                    "pearson": pearson(cosines[name], truth),
                    "pearson_low": float(low),
                    "pearson_high": float(high),
                    "spearman": spearman(cosines[name], truth),
                    "weights_bytes": embedder.parameter_bytes(),
                    "saved_bytes": saved_bytes(embedder.module),
                }
                if name != "fp32" and "fp32" in resampled:
                    lost = resampled[name] - resampled["fp32"]
                    low, high = np.quantile(lost, (0.025, 0.975))
                    rows[name]["pearson_minus_fp32"] = {
                        "mean": rows[name]["pearson"] - rows["fp32"]["pearson"],
                        "low": float(low),
                        "high": float(high),
                    }

                # Every draw's index and the queries, in this precision.
                embed = Remembered(embedder)
                found = []
                for drawn in galleries if clips else []:
                    gallery = Gallery.of(drawn, embed)
                    asked = Questions.of(clips, gallery, embed)
                    found.append(search_people(gallery, asked, everything(gallery), "mean", embed))
                for k in (1, 5, 10) if clips else ():
                    each = [100 * f.hits(k) for f in found]
                    hits[name, k] = np.mean(each, axis=0)
                    sure = clustered_interval(hits[name, k], found[0].target, **draws)
                    rows[name][f"r{k}"] = {"mean": sure.mean, "low": sure.low, "high": sure.high}
                    if name != "fp32" and ("fp32", k) in hits:
                        sure = clustered_interval(
                            hits[name, k] - hits["fp32", k], found[0].target, **draws
                        )
                        rows[name][f"r{k}_minus_fp32"] = {
                            "mean": sure.mean,
                            "low": sure.low,
                            "high": sure.high,
                        }
        folder = weights[0].parent
        run.values |= {
            "precision": "all",
            "pairs": len(pairs),
            "queries": len(clips),
            "retrieval_protocol": protocol.name if clips else "",
            "draws": people.draws,
            "fp32_file_bytes": sum(w.stat().st_size for w in weights),
            "tokenizer_bytes": sum(
                p.stat().st_size for p in folder.iterdir() if p.suffix in (".txt", ".json")
            ),
            "recipes": rows,
        }
        # Numbers only: the sentences are not ours to pass on.
        run.samples += [
            {
                "pair": i,
                "score": truth[i],
                "cosine": {n: round(float(c[i]), 6) for n, c in cosines.items()},
            }
            for i in range(len(pairs))
        ]
    for name, row in rows.items():
        print(
            f"text_embedder {name}: Pearson {row['pearson']:.4f}, Spearman {row['spearman']:.4f}, "
            f"{row['weights_bytes'] / 1e6:.1f} MB"
            + (f", R@1 {row['r1']['mean']:.1f}" if "r1" in row else "")
        )


def _settings(plain: dict[str, Any]) -> dict[str, Any]:
    """What a record keeps: not where the data lie, as its hash is among the inputs."""
    data = {
        name: {k: v for k, v in node.items() if k not in ("annotations", "videos")}
        for name, node in plain["datasets"].items()
    }
    return {**plain, "datasets": data, "scale": {"name": "paper"}}


if __name__ == "__main__":
    main()
