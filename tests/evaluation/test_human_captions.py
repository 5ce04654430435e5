"""People's captions as an index: what enters it, what never does, and figures worked by hand.

A caption's vector is a bag of its words here, so similarities can be read off the text.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from atom_repro import config
from atom_repro.data import didemo, msrvtt, msvd, stsb
from atom_repro.datatypes import AtomError, Clip, Query
from atom_repro.evaluation.human_captions.captioner import (
    HumanCaptions,
    build,
    consensus,
    draw_captions,
)
from atom_repro.evaluation.human_captions.captioning import caption_study
from atom_repro.evaluation.human_captions.retrieval import retrieval_study
from atom_repro.evaluation.human_captions.text_index import (
    NO_GROUP,
    CachedEmbedder,
    Gallery,
    Queries,
    all_captions,
    at_random,
    index_texts,
    most_central,
    normalised_text,
    paragraph_queries,
    search_human_index,
    with_one_caption,
)
from atom_repro.metrics.caption import score_captions
from atom_repro.metrics.correlation import pearson, spearman
from atom_repro.metrics.retrieval import recall_at

DATA = Path(__file__).parents[2] / "../shared/data"
WORDS: dict[str, int] = {}


def bag(texts: Sequence[str]) -> np.ndarray:
    vectors = np.zeros((len(texts), 64), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        for word in text.lower().replace(".", " ").split():
            vector[WORDS.setdefault(word, len(WORDS) % 64)] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clip(
    name: str, references: Sequence[str], queries: Sequence[str] = (), kind="sentence"
) -> Clip:
    asked = tuple(Query(f"{name}#{i}", q, kind) for i, q in enumerate(queries or references))
    return Clip("d", "test", name, Path("x"), references=tuple(references), queries=asked)


CLIPS = [
    clip("a", ["red cat", "red cat runs", "Red cat!", "sun"]),
    clip("b", ["blue dog", "blue dog runs", "moon"]),
    clip("c", ["red cat sleeps", "green tree", "green tree stands"]),
]


@pytest.fixture
def gallery() -> Gallery:
    return Gallery.of(CLIPS, bag)


def test_what_is_the_same_sentence():
    same = ["A man's dog.", "a man s dog", " a  mans dog", "A MAN'S DOG!"]
    assert len({normalised_text(t) for t in same}) == 1
    assert (
        normalised_text("猫が寝る。") == normalised_text("猫が 寝る") != normalised_text("犬が寝る")
    )
    assert normalised_text("?!") == "?!"


def test_a_query_and_its_copies_never_enter_its_own_videos_index(gallery):
    questions = Queries.of(CLIPS, gallery, bag)
    people = build(draws=4, several=2, seed=0)
    for _, choice, _, own in people.indexes(gallery):
        for text, video, group in zip(
            [q.text for c in CLIPS for q in c.queries],
            questions.video,
            questions.group,
            strict=True,
        ):
            rows = (own or choice)(int(video), int(group))
            assert rows, "every video has another caption"
            assert all(normalised_text(gallery.texts[r]) != normalised_text(text) for r in rows)
            assert all(r in gallery.rows[video] for r in rows)


def test_the_most_central_caption_is_chosen_without_the_query(gallery):
    central = most_central(gallery)
    assert gallery.texts[central(0, NO_GROUP)[0]] in ("red cat", "Red cat!")
    group = gallery.group_of[0, normalised_text("red cat")]
    assert gallery.texts[central(0, group)[0]] in ("red cat runs", "sun")


def test_ranks_by_hand(gallery):
    asked = [clip("a", CLIPS[0].references, ["red cat"]), *CLIPS[1:]]
    questions = Queries.of(asked[:1], gallery, bag)
    found = search_human_index(gallery, questions, all_captions(gallery), "max", bag)
    # The own video's best is "red cat runs" (2/sqrt 6), like c's "red cat sleeps": a tie for first.
    assert (found.rank.tolist(), found.ties.tolist()) == ([0], [1])
    assert recall_at(found, 1).expected == 50.0


def test_mean_max_and_joined_are_one_for_one_caption(gallery):
    questions = Queries.of(CLIPS, gallery, bag)
    choice = at_random(gallery, 1, 3)
    mean, most, joined = (
        search_human_index(gallery, questions, choice, how, bag)
        for how in ("mean", "max", "joined")
    )
    assert np.array_equal(mean.rank, most.rank) and np.array_equal(mean.rank, joined.rank)
    assert index_texts(gallery, choice, "joined") == index_texts(gallery, choice, "max")


def test_knowing_the_query_never_ranks_worse(gallery):
    questions = Queries.of(CLIPS, gallery, bag)
    random, whole = at_random(gallery, 1, 0), all_captions(gallery)
    blind = search_human_index(gallery, questions, random, "mean", bag)
    best = search_human_index(gallery, questions, random, "max", bag, own_selector=whole)
    assert (best.rank <= blind.rank).all()


def test_a_video_that_has_only_the_query_is_missed():
    clips = [clip("a", ["red cat", "Red cat."]), clip("b", ["blue dog", "moon"])]
    gallery = Gallery.of(clips, bag)
    found = search_human_index(
        gallery, Queries.of(clips, gallery, bag), all_captions(gallery), "mean", bag
    )
    assert found.missed.tolist() == [True, True, False, False]
    assert recall_at(found, 2).expected == 50.0


def test_a_thousand_identical_captions_give_chance():
    clips = [clip(str(i), ["a man talks", f"w{i}"], ["somebody"]) for i in range(1000)]
    same = [clip(c.video_id, ["a man talks"], ["somebody"]) for c in clips]
    gallery = Gallery.of(same, bag)
    questions = Queries.of(same, gallery, bag)
    found = search_human_index(gallery, questions, all_captions(gallery), "mean", bag)
    for k in (1, 5, 10):
        assert recall_at(found, k).expected == pytest.approx(k / 10)


def test_a_paragraph_leaves_out_what_is_indexed(gallery):
    choice = at_random(gallery, 1, 0)
    questions = paragraph_queries(gallery, choice, bag)
    texts = []
    paragraph_queries(gallery, choice, lambda t: (texts.extend(t), bag(t))[1])
    assert questions.ids == ("a", "b", "c")
    for v, text in enumerate(texts):
        indexed = gallery.texts[choice(v, NO_GROUP)[0]]
        parts = [t for t in gallery.texts if normalised_text(t) == normalised_text(indexed)]
        assert len(text.split()) == sum(len(t.split()) for t in CLIPS[v].references) - sum(
            len(p.split()) for p in parts
        )
    single = Gallery.of([clip("x", ["red cat", "Red cat"]), CLIPS[1]], bag)
    assert paragraph_queries(single, at_random(single, 1, 0), bag).ids == ("b",)


def test_drawn_captions_are_never_taken_twice():
    drawn = draw_captions(CLIPS, 3, 0)
    for i, c in enumerate(CLIPS):
        assert len({int(d.position[i]) for d in drawn}) == 3
        for d in drawn:
            assert len(d.references[c.video_id]) == len(c.references) - 1
    with pytest.raises(AtomError, match=r"draws=4: b has 3 captions"):
        draw_captions(CLIPS, 4, 0)
    with pytest.raises(AtomError, match="no other caption to compare"):
        HumanCaptions.of([clip("a", ["one"])], [0])
    with pytest.raises(AtomError, match="at least 1"):
        build(draws=0, several=1, seed=0)


def test_copies_leave_the_references_and_a_clip_of_copies_is_refused():
    said = HumanCaptions.of(CLIPS, [0, 0, 0]).without_duplicates(CLIPS)
    assert said.predictions["a"] == "red cat"
    assert said.references["a"] == ("red cat runs", "sun")
    assert HumanCaptions.of(CLIPS, [0, 0, 0]).references["a"][1] == "Red cat!"
    with pytest.raises(AtomError, match="no other caption to compare"):
        HumanCaptions.of([clip("x", ["a", "A."])], [0], keep_duplicates=False)


def test_the_consensus_shares_most_words():
    assert consensus(CLIPS).predictions == {
        "a": "red cat", "b": "blue dog", "c": "green tree",
    }  # fmt: skip


def test_one_caption_besides_the_query():
    kept = with_one_caption([clip("a", ["Red cat.", "a sun"], ["red cat"])], 0)
    assert kept[0].references == ("a sun",)
    with pytest.raises(AtomError, match="no caption besides its query's"):
        with_one_caption([clip("a", ["Red cat."], ["red cat"])], 0)
    with pytest.raises(AtomError, match="no caption to index"):
        Gallery.of([Clip("d", "test", "a", Path("x"))], bag)


def test_texts_are_embedded_once():
    class Counting:
        dimensions = 64

        def __init__(self):
            self.seen = []

        def __call__(self, texts):
            import torch

            self.seen.extend(texts)
            return torch.from_numpy(bag(texts))

    embedder = Counting()
    embed = CachedEmbedder(embedder)
    first, again = embed(["a", "b", "a"]), embed(["b", "c"])
    assert embedder.seen == ["a", "b", "c"]
    np.testing.assert_array_equal(first[1], again[0])
    assert embed([]).shape == (0, 64)


@pytest.mark.parametrize("kind", ["sentence", "paragraph"])
def test_a_study_keeps_numbers_and_no_text(kind):
    paragraph = kind == "paragraph"
    clips = [
        clip(c.video_id, c.references, (" ".join(c.references),) if paragraph else (), kind)
        for c in CLIPS
    ]
    study = retrieval_study(clips, build(draws=2, several=2, seed=0), bag, resamples=50, seed=0)
    text = json.dumps([study.values, study.samples], allow_nan=False)
    assert not any(r in text for c in CLIPS for r in c.references)
    central = "most central, query known" if paragraph else "most central"
    assert {"one at random", central, "floor: next video's caption"} <= set(study.values["rows"])
    assert [s["video_id"] for s in study.samples] == ["a", "b", "c"]
    one = study.values["rows"]["one at random"]
    assert study.values["curve"]["3"]["r1"]["mean"] == pytest.approx(one["r1"]["mean"])
    assert one["r1"]["low"] <= one["r1"]["mean"] <= one["r1"]["high"]
    best = next(v for k, v in study.values["rows"].items() if k.startswith("best of"))
    assert best["r1"]["mean"] >= one["r1_draws"][1] - 1e-9
    assert study.values["bytes"]["paper_latent_bytes"] == 8 * 2**20


@pytest.mark.java
def test_people_are_scored_like_a_captioner():
    people = build(draws=2, several=1, seed=0)
    study = caption_study(
        CLIPS, {"t": ["a green fish"]}, people, resamples=50, seed=0, java=None,
        progress=lambda _: None,
        metrics=("bleu", "rouge_l", "cider"),  # METEOR takes seconds to start, for every row
    )  # fmt: skip
    drawn = draw_captions(CLIPS, 2, 0)
    direct = [
        score_captions(d.predictions, d.references, metrics=("bleu", "cider")).corpus for d in drawn
    ]
    row = study.values["rows"]["one at random"]
    assert row["cider"]["mean"] == pytest.approx(np.mean([d["cider"] for d in direct]))
    assert row["draws"]["bleu_4"] == pytest.approx(sorted(d["bleu_4"] for d in direct))
    assert row["rouge_l"]["low"] <= row["rouge_l"]["mean"] <= row["rouge_l"]["high"]
    rows = study.values["rows"]
    best = rows["best of 2 draws, references known"]["cider"]["mean"]
    assert best > row["cider"]["mean"] > rows["floor: next video's caption"]["cider"]["mean"]
    assert study.values["constant_sentence"] == "a green fish"  # of the training split
    text = json.dumps([study.values, study.samples], allow_nan=False)
    assert not any(r in text for c in CLIPS for r in c.references)


def test_the_commands_configurations_name_every_protocol():
    plain = config.to_dict(config.compose("human_captions", []))
    named = {n["name"] for g in ("caption", "retrieval") for n in plain[g].values()}
    assert named == {
        "msrvtt/caption-full", "msrvtt/ret-1ka", "msrvtt/ret-full", "msvd/caption",
        "msvd/ret-multi", "didemo/ret-paragraph", "didemo/ret-sentence",
    }  # fmt: skip
    for primary in ("text_embedder", "data_check"):
        assert config.to_dict(config.compose(primary, []))


# --- On the real annotations ------------------------------------------------------------------


def real(name: str) -> str:
    if not (DATA / name).is_dir():
        pytest.skip(f"no annotations at {DATA / name}")
    return str(DATA / name)


def test_every_real_query_has_another_caption_on_its_video():
    """Without it the oracle would count a miss that is no failure of the index."""
    sets = {
        "msrvtt": msrvtt.build(annotations=real("msrvtt"), videos="/x", train="official"),
        "msvd": msvd.build(annotations=real("msvd"), videos="/x"),
    }
    for dataset in sets.values():
        for c in dataset.clips("test"):
            assert len({normalised_text(t) for t in c.references}) > 1
    didemo_test = didemo.build(annotations=real("didemo"), videos="/x").clips("test")
    alone = sum(len({normalised_text(t) for t in c.references}) == 1 for c in didemo_test)
    assert alone == 35


@pytest.mark.long
@pytest.mark.slow
def test_table7_fp32_is_the_papers_within_0_002():
    from atom_repro.models.text_embedder import load_text_embedder

    pairs = stsb.build(annotations=real("stsb"), hub_id="").pairs("test")
    paper = Path(__file__).parents[2] / "results/paper/table07.csv"
    with paper.open(encoding="utf-8") as stream:
        printed = {r["row"]: float(r["value"]) for r in csv.DictReader(stream)}
    embedder = load_text_embedder(batch_size=32)
    vectors = embedder([p.first for p in pairs] + [p.second for p in pairs]).numpy()
    cosine = (vectors[: len(pairs)] * vectors[len(pairs) :]).sum(axis=1)
    truth = [p.score for p in pairs]
    assert pearson(cosine, truth) == pytest.approx(printed["all-MiniLM-L6-v2/fp32"], abs=0.002)
    assert spearman(cosine, truth) == pytest.approx(0.8203, abs=0.001)
