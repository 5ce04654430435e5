"""A training starts from the weights of a folder, or says in one line what is missing."""

import re

import pytest
import torch
from conftest import spoil

from atom_repro.checkpoints.checkpoint import starting_checkpoint, starting_tokenizer
from atom_repro.datatypes import AtomError
from atom_repro.engines import eager
from atom_repro.quant import int8
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.network import load_initial_weights


def test_weights_and_tokenizer_are_those_of_the_folder(saved, model, tokenizer):
    start = starting_checkpoint(str(saved), model, "tiny")
    network = CaptioningModel(
        model, tokenizer, word_weight=0.0, text_weight=0.0, rarity=[1.0] * 300
    )
    load_initial_weights(start, network)
    encoder = eager.build().load_encoder(start.encoder(), model).network
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[name], tensor)
    assert network.decoder.lm_head.weight is network.decoder.model.embed_tokens.weight
    assert all(p.requires_grad for p in network.parameters())
    text = "a red ball"
    assert starting_tokenizer(start, model).encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("module", ["encoder", "decoder"])
def test_weights_that_are_not_finite_are_neither_scored_nor_quantised_nor_trained(
    saved, model, tokenizer, module
):
    start = starting_checkpoint(str(saved), model, "tiny")
    start.require_finite()
    name = spoil(saved / "fp32" / module)
    said = rf"fp32/{module}/model\.safetensors: weights are not finite: {re.escape(name)}; train"
    network = CaptioningModel(
        model, tokenizer, word_weight=0.0, text_weight=0.0, rarity=[1.0] * 300
    )
    for use in (
        start.require_finite,
        lambda: start.prepare(int8.build(linear="dynamic", embedding="weight_only"), model),
        lambda: load_initial_weights(start, network),
    ):
        with pytest.raises(AtomError, match=said):
            use()
    assert not (saved / "int8").exists()


def test_what_is_missing_is_one_line(tmp_path, model):
    assert starting_checkpoint("", model, "tiny") is None
    with pytest.raises(AtomError, match=r"train\.start is empty and scale=paper"):
        starting_checkpoint("", model, "paper")
    with pytest.raises(AtomError, match=r"has no fp32/encoder; give a checkpoint folder"):
        starting_checkpoint(str(tmp_path), model, "paper")
