"""Exported decoders before any export: their graphs and host give what the networks give."""

import pytest
import torch
from conftest import small_model

from atom_repro.datatypes import AtomError
from atom_repro.models import bert_decoder_export, exported, text_decoder_export
from atom_repro.models.bert_decoder import BertDecoder, BertDecoderConfig
from atom_repro.models.exported import FORMS, MAX_BEAMS, MAX_CLIPS, Forms
from atom_repro.models.generation import (
    ContinuousBatch,
    GenerationSettings,
    generate,
    score_continuations,
)
from atom_repro.models.text_decoder import TextDecoder
from atom_repro.models.visual_tokens import VisualTokens

BERT = BertDecoderConfig(
    vocabulary=300, width=48, layers=2, heads=4, mlp_width=96, max_positions=40
)


def llama() -> TextDecoder:
    return TextDecoder(small_model().decoder)


@pytest.fixture(params=["llama", "bert"])
def pair(request):
    """A network, the same behind its host, and the ids of a prompt with three visual tokens."""
    torch.manual_seed(0)
    network, export, ids = {
        "llama": (llama(), text_decoder_export.TEXT_DECODER_EXPORT, [1, -1, -1, -1, 5]),
        "bert": (BertDecoder(BERT), bert_decoder_export.BERT_DECODER_EXPORT, [1, 5]),
    }[request.param]
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    tables = {name: rows_of(network.get_parameter(name)) for name in export.tables}
    methods = {m.name: m.module for m in export.methods(network)}
    return network, export.host(network.config, tables, methods), ids


def rows_of(weight):
    return lambda ids: weight[ids]


def video(clips: int) -> VisualTokens:
    return VisualTokens(torch.randn(clips, 3, 48, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("clips", "beams"), [(1, 1), (3, 4), (MAX_CLIPS + 1, MAX_BEAMS + 1)])
def test_search_finds_the_same_texts(pair, clips, beams):
    network, hosted, ids = pair
    settings = GenerationSettings(beams=beams, max_new_tokens=9)
    expected, found = (
        generate(each, each.start(video(clips), ids), end_id=2, settings=settings)
        for each in (network, hosted)
    )
    assert [g.token_ids for g in found] == [g.token_ids for g in expected]
    assert [g.log_prob for g in found] == pytest.approx([g.log_prob for g in expected], abs=1e-4)
    assert len({g.token_ids for g in expected}) > clips // 2  # the clips differ, so do texts


def test_texts_score_the_same(pair):
    network, hosted, ids = pair
    texts = [[7, 8, 9], [10], [11, 12], [13], [14, 15]]
    expected, found = (
        score_continuations(each, each.start(video(2), ids), texts) for each in (network, hosted)
    )
    for clip, other in zip(found, expected, strict=True):
        for scores, wanted in zip(clip, other, strict=True):
            assert scores == pytest.approx(wanted, abs=1e-4)


def test_clips_of_several_lengths_share_a_step(pair):
    """As they do when one joins while others run: positions and masks belong to the clip."""
    network, hosted, ids = pair
    _, cache = hosted.start(video(2), ids)
    cache.open(1, 4)
    alone = network.start(video(2), ids)[1]
    alone.open(1, 4)
    for token in (3, 4):
        hosted.step(torch.full((2, 1), token), cache)
        network.step(torch.full((2, 1), token), alone)
    cache.length[1], cache.beam_mask[1, ..., 1] = 1, exported.NEVER  # the second is one behind
    after = hosted.step(torch.tensor([[5], [4]]), cache)
    third = network.step(torch.tensor([[5], [5]]), alone)
    assert torch.allclose(after[0], third[0], atol=1e-4)
    behind = network.start(video(2), ids)[1]
    behind.open(1, 4)
    network.step(torch.full((2, 1), 3), behind)
    second = network.step(torch.full((2, 1), 4), behind)
    assert torch.allclose(after[1], second[1], atol=1e-4)


def test_clips_that_join_and_leave_get_the_texts_of_a_search_alone(pair):
    """With prompts and captions of several lengths, in a batch of at most three."""
    network, hosted, ids = pair
    settings = GenerationSettings(beams=3, max_new_tokens=12)
    clips = [VisualTokens(v[None]) for v in video(7).tokens]
    prompts = [ids + [6] * (i % 3) for i in range(len(clips))]

    def search_alone(end_id):
        return [
            generate(network, network.start(v, p), end_id=end_id, settings=settings)[0]
            for v, p in zip(clips, prompts, strict=True)
        ]

    # The end is a token that some captions have in their middle: they have several lengths.
    words = [token for one in search_alone(299) for token in one.token_ids[2:6]]
    end_id = next(w for w in words if len({len(g.token_ids) for g in search_alone(w)}) > 1)
    alone = search_alone(end_id)
    batch = ContinuousBatch(hosted, end_id=end_id, settings=settings)
    found, waiting, most = {}, list(range(len(clips))), 0
    while waiting or len(batch):
        while waiting and len(batch) < 3:
            number = waiting.pop(0)
            if (
                done := batch.add(number, hosted.start(clips[number], prompts[number]))
            ) is not None:
                found[number] = done
        most = max(most, len(batch))
        if len(batch):
            found |= batch.step()
    assert most == 3
    for number, expected in enumerate(alone):
        assert found[number].token_ids == expected.token_ids
        assert found[number].log_prob == pytest.approx(expected.log_prob, abs=1e-4)


def test_limits_are_said_in_one_line(pair):
    _, hosted, ids = pair
    _, cache = hosted.start(video(1), ids)
    with pytest.raises(AtomError, match=r"max_new_tokens=300 exceeds the 256 .* engine=eager"):
        cache.open(1, 300)
    with pytest.raises(AtomError, match="the prompt has 1025 tokens"):
        hosted.start(video(1), [3] * 1025)
    with pytest.raises(AtomError, match=r"beyond model\.decoder\.max_positions"):
        hosted.start(video(1), [1, -1, -1, -1, *[5] * 140])


def test_a_subclass_is_not_exported_as_its_parent():
    class Other(TextDecoder):
        """Does more than its parent."""

    with pytest.raises(AtomError, match="Other has no export of its own"):
        text_decoder_export.methods(Other(small_model().decoder))


@pytest.mark.parametrize(
    "forms", [Forms(fused=False), Forms(hoisted=False), Forms(fused=False, hoisted=False)]
)
def test_graphs_without_their_optimisations_find_the_same_texts(forms):
    torch.manual_seed(0)
    network = llama().eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    export = text_decoder_export.TEXT_DECODER_EXPORT
    tables = {name: rows_of(network.get_parameter(name)) for name in export.tables}
    settings = GenerationSettings(beams=3, max_new_tokens=9)
    texts = []
    for each in (FORMS, forms):
        made = export.methods(network, each)
        for method in made:  # an example fits its method, and every argument has its sizes
            method.module(*method.example)
            assert len(method.dynamic) == len(method.example)
        hosted = export.host(network.config, tables, {m.name: m.module for m in made}, each)
        start = hosted.start(video(2), [1, -1, -1, -1, 5])
        texts.append(generate(hosted, start, end_id=2, settings=settings))
    assert [g.token_ids for g in texts[0]] == [g.token_ids for g in texts[1]]
    assert [g.log_prob for g in texts[0]] == pytest.approx([g.log_prob for g in texts[1]], abs=1e-4)


def test_a_position_beyond_the_table_is_refused_by_every_form():
    network = llama().eval()
    export = text_decoder_export.TEXT_DECODER_EXPORT
    tables = {name: rows_of(network.get_parameter(name)) for name in export.tables}
    for forms in (FORMS, Forms(hoisted=False)):
        methods = {m.name: m.module for m in export.methods(network, forms)}
        hosted = export.host(network.config, tables, methods, forms)
        with pytest.raises(AtomError, match=r"position 129, beyond model\.decoder\.max_positions"):
            hosted.start(None, [1] * 129)


def test_what_a_decoder_cannot_leave_out_is_one_line():
    with pytest.raises(AtomError, match=r"engine\.hoisted=false needs a decoder with rotary"):
        bert_decoder_export.methods(BertDecoder(BERT), Forms(hoisted=False))
