"""Variants of a comparison: each composed alone, and none that would compare different work."""

import pytest

from atom_repro import config
from atom_repro.datatypes import AtomError
from atom_repro.study.overrides import variants

TWO = {"plain": ["quant=none"], "batched": ["quant=int8", "runtime.decode_batch=4"]}


def test_a_variant_is_the_command_line_and_its_own_overrides():
    composed = variants("compare", ["quant=8da8w", "generation.beams=2"], TWO)
    assert list(composed) == ["plain", "batched"]
    plain, batched = composed.values()
    assert (plain.runtime.decode_batch, batched.runtime.decode_batch) == (1, 4)
    assert [c.generation.beams for c in (plain, batched)] == [2, 2]
    assert plain.quant["_target_"].endswith("none.build")  # its own override is the one that counts


def test_only_names_some_in_their_order():
    assert list(variants("compare", [], TWO, only=["batched", "plain"])) == ["batched", "plain"]


def test_the_shipped_variants_compose():
    for group in ("appendix_d", "engines", "switches", "windows"):
        by_name = config.to_dict(config.compose("compare", [f"variants={group}"]))["variants"]
        assert len(variants("compare", [], by_name)) == len(by_name) >= 2


def test_a_variant_of_ones_own_needs_no_file():
    cfg = config.compose("compare", ["variants.greedy=['generation.beams=1']", "only=[greedy]"])
    (greedy,) = variants("compare", [], config.to_dict(cfg)["variants"], only=cfg.only).values()
    assert greedy.generation.beams == 1


@pytest.mark.parametrize(
    ("by_name", "only", "message"),
    [
        ({}, (), "variants is empty"),
        (TWO, ("plane",), "there is no variant plane; did you mean plain?"),
        ({"a": ["runtime.decode_bach=4"]}, (), "variants.a: .*runtime.decode_bach"),
        ({"a": ["job_clips=9"]}, (), "variants.a: job_clips is the same for all"),
        ({"a": ["pipeline=summary"]}, (), "variants.a: pipeline is the same for all"),
        ({"a": ["scale.job_clips=9"]}, (), "variants.a: scale.job_clips is the same for all"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_variant(by_name, only, message):
    with pytest.raises(AtomError, match=message):
        variants("compare", [], by_name, only=only)
