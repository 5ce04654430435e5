"""Recall with ties: by hand, against a plain implementation, and where a naive one fails."""

import numpy as np
import pytest

from atom_repro.metrics.retrieval import max_over_texts, ranks, recall_at, retrieval_scores

# Query 0: first. Query 1: one ahead, one tied. Query 2: three tied for first. Query 3: last.
SIMILARITY = np.array(
    [
        [0.9, 0.1, 0.2, 0.3],
        [0.8, 0.5, 0.5, 0.1],
        [0.4, 0.4, 0.4, 0.0],
        [0.7, 0.6, 0.5, 0.4],
    ]
)
TARGET = np.array([0, 1, 2, 3])


def test_ranks_and_ties_by_hand() -> None:
    result = ranks(SIMILARITY, TARGET)
    assert result.rank.tolist() == [0, 1, 0, 3]
    assert result.ties.tolist() == [0, 1, 2, 0]
    assert result.tied_queries == 2
    # Expected ranks 1, 2.5, 2, 4.
    assert result.median_rank == 2.25
    assert result.mean_rank == 2.375


@pytest.mark.parametrize(
    ("k", "expected", "pessimistic", "optimistic"),
    [
        (1, (1 + 0 + 1 / 3 + 0) / 4, 1 / 4, 2 / 4),
        (2, (1 + 1 / 2 + 2 / 3 + 0) / 4, 1 / 4, 3 / 4),
        (3, 3 / 4, 3 / 4, 3 / 4),
        (4, 1.0, 1.0, 1.0),
        (9, 1.0, 1.0, 1.0),
    ],
)
def test_recall_by_hand(k: int, expected: float, pessimistic: float, optimistic: float) -> None:
    recall = recall_at(ranks(SIMILARITY, TARGET), k)
    assert recall.expected == pytest.approx(100 * expected)
    assert recall.pessimistic == pytest.approx(100 * pessimistic)
    assert recall.optimistic == pytest.approx(100 * optimistic)
    shown = (recall.pessimistic, recall.optimistic) if k < 3 else None
    assert recall.bounds == shown


def test_identical_captions_give_chance() -> None:
    result = ranks(np.full((1000, 1000), 0.7), np.arange(1000))
    for k in (1, 5, 10):
        assert recall_at(result, k).expected == pytest.approx(k / 10)
        assert recall_at(result, k).bounds == (0.0, 100.0)
    assert result.median_rank == 500.5
    assert result.tied_queries == 1000


def test_expected_recall_is_the_mean_over_orders_of_ties() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 4, size=(200, 12)).astype(float)
    target = rng.integers(0, 12, size=200)
    result = ranks(similarity, target)
    jittered = [
        ranks(similarity + rng.uniform(0, 0.1, size=similarity.shape), target) for _ in range(400)
    ]
    for k in (1, 3, 5):
        observed = [recall_at(one, k).expected for one in jittered]
        assert recall_at(result, k).expected == pytest.approx(np.mean(observed), abs=0.5)
        assert recall_at(result, k).pessimistic <= min(observed)
        assert recall_at(result, k).optimistic >= max(observed)


def test_without_ties_it_equals_a_plain_sort() -> None:
    rng = np.random.default_rng(1)
    grid = np.tile(np.linspace(-1, 1, 300, dtype=np.float32), (2500, 1))  # no two values close
    similarity = rng.permuted(grid, axis=1)  # and more rows than are done at once
    target = rng.integers(0, 300, size=2500)
    order = np.argsort(-similarity, axis=1)
    position = np.argmax(order == target[:, None], axis=1)
    result = ranks(similarity, target)
    np.testing.assert_array_equal(result.rank, position)
    assert result.tied_queries == 0
    for k in (1, 5, 10):
        recall = recall_at(result, k)
        assert recall.expected == recall.pessimistic == recall.optimistic
        assert recall.expected == pytest.approx(100 * np.mean(position < k))


def test_the_tolerance_splits_nothing_twice() -> None:
    similarity = np.array([[0.5, 0.5 + 5e-7, 0.5 - 5e-7, 0.5 + 2e-6, 0.5 - 2e-6]])
    result = ranks(similarity, [0])
    assert (result.rank[0], result.ties[0]) == (1, 2)


def test_micro_counts_queries_and_macro_counts_videos() -> None:
    # Video 0 has three queries, all found; video 1 has one, not found.
    similarity = np.array([[1.0, 0.0]] * 4)
    result = ranks(similarity, [0, 0, 0, 1])
    assert recall_at(result, 1).expected == 75.0
    assert recall_at(result, 1, average="macro").expected == 50.0
    with pytest.raises(ValueError, match="micro or macro"):
        recall_at(result, 1, average="weighted")


def test_a_missing_video_is_never_found_and_stays_in_the_index() -> None:
    similarity = SIMILARITY.copy()
    similarity[:, 0] = np.nan
    result = ranks(similarity, TARGET, missing=[True, False, False, False])
    assert result.missed.tolist() == [True, False, False, False]
    assert result.rank.tolist() == [4, 0, 0, 2]
    assert result.ties.tolist() == [0, 1, 1, 0]
    assert result.index_size == 4
    assert recall_at(result, 100).optimistic == 75.0
    every = ranks(similarity, TARGET, missing=[True] * 4)
    assert recall_at(every, 4).optimistic == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_similarity_that_is_not_finite_is_an_error(bad: float) -> None:
    similarity = SIMILARITY.copy()
    similarity[3, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        ranks(similarity, TARGET)


def test_shapes_and_targets_that_do_not_fit_are_errors() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        ranks(SIMILARITY, [0, 1])
    with pytest.raises(ValueError, match="outside the 4 columns"):
        ranks(SIMILARITY, [0, 1, 2, 4])
    with pytest.raises(ValueError, match="column numbers"):
        ranks(SIMILARITY, [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="4 booleans"):
        ranks(SIMILARITY, TARGET, missing=[0, 1, 0, 0])
    with pytest.raises(ValueError, match="not a positive"):
        recall_at(ranks(SIMILARITY, TARGET), 0)


def test_the_best_text_speaks_for_its_video() -> None:
    similarity = np.array([[0.1, 0.9, 0.5, 0.3], [0.2, 0.1, 0.6, -0.4]])
    best = max_over_texts(similarity, [2, 0, 2, 0], videos=4)
    expected = [[0.9, -np.inf, 0.5, -np.inf], [0.1, -np.inf, 0.6, -np.inf]]
    assert best.tolist() == expected
    absent = ~np.isfinite(best).any(axis=0)
    assert ranks(best, [0, 2], missing=absent).rank.tolist() == [0, 0]
    with pytest.raises(ValueError, match="not finite"):
        ranks(best, [0, 2])
    assert max_over_texts(similarity, [0, 1, 1, 0]).shape == (2, 2)
    with pytest.raises(ValueError, match="outside the 2 videos"):
        max_over_texts(similarity, [2, 0, 2, 0], videos=2)


def test_scores_hold_what_a_table_shows() -> None:
    scores = retrieval_scores(ranks(SIMILARITY, TARGET), distinct_texts=3)
    assert list(scores.micro) == list(scores.macro) == [1, 5, 10]
    assert (scores.queries, scores.index_size, scores.distinct_texts) == (4, 4, 3)
    assert (scores.tied_queries, scores.missed_queries, scores.median_rank) == (2, 0, 2.25)
