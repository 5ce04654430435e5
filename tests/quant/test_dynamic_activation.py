"""8da8w and 8da4w: their bytes, their files, and what they leave alone."""

import pytest
import torch
from conftest import small_model
from torch import nn

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.datatypes import AtomError
from atom_repro.engines.eager import EagerEngine
from atom_repro.models.generation import GenerationSettings
from atom_repro.quant import dynamic_activation
from atom_repro.quant.dynamic_activation import pack_nibbles, unpack_nibbles
from atom_repro.quant.recipe import stored_bytes

INT8 = dynamic_activation.build(weight_bits=8, group=0)
INT4 = dynamic_activation.build(weight_bits=4, group=8)


def test_recipes_have_the_names_that_runtimes_know():
    assert (INT8.recipe, INT8.name) == ("8da8w", "int8")
    assert dynamic_activation.build(weight_bits=4, group=32).recipe == "8da4w"
    assert (INT4.recipe, INT4.name) == ("8da4w-group_8", "int4")
    with pytest.raises(AtomError, match=r"quant\.weight_bits=3 is neither 4 nor 8"):
        dynamic_activation.build(weight_bits=3, group=0)
    with pytest.raises(AtomError, match=r"quant\.group=7"):
        dynamic_activation.build(weight_bits=4, group=7)


def test_every_nibble_survives():
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(2, 1)
    assert pack_nibbles(codes).nbytes == codes.nbytes // 2
    assert torch.equal(unpack_nibbles(pack_nibbles(codes)), codes)


@pytest.mark.parametrize(("quantiser", "largest"), [(INT8, 1 / 127), (INT4, 1 / 7)])
def test_weights_are_within_half_a_step_of_their_scale(quantiser, largest):
    torch.manual_seed(0)
    layer = nn.Linear(64, 16)
    weight = layer.weight.detach().clone()
    quantiser.quantise(nn.Sequential(layer))
    assert layer.weight.qdata.abs().max() >= (1 / largest) - 1
    wrong = (layer.weight.dequantize() - weight).abs()
    assert 0 < wrong.max() <= 0.55 * largest * weight.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize("quantiser", [INT8, INT4], ids=["8da8w", "8da4w"])
def test_files_give_back_the_modules_and_have_the_bytes_that_are_said(saved, frames, quantiser):
    model = small_model()
    checkpoint = Checkpoint(saved)
    report = checkpoint.prepare(quantiser, model)["decoder"]
    assert report["changed"]["lm_head"] == (
        f"int8 dynamic activation, int{quantiser.weight_bits} weight"
    )
    assert set(report["skipped"]) == {"RMSNorm"}
    with torch.device("meta"):
        networks = {"encoder": model.make_encoder(), "decoder": model.make_decoder()}
    for name, size in checkpoint.bytes(quantiser).items():
        expected = stored_bytes(quantiser, networks[name])
        if name == "decoder":  # its embedding is a weight of its own now
            embedding = networks[name].model.embed_tokens
            expected += quantiser.bytes_of(embedding, embedding.weight)
        # Names and shapes are in the file too.
        assert expected < size - len(str(report["changed"])) < 1.35 * expected
    settings = GenerationSettings(max_new_tokens=5, forbid_end=True)
    engine = EagerEngine()
    encoder = engine.load_encoder(checkpoint.encoder(quantiser), model, quantiser)
    decoder = engine.load_decoder(checkpoint.decoder(quantiser), model, quantiser)
    reference = engine.load_decoder(checkpoint.decoder(), model)
    quantiser.quantise(reference.network)
    visual = encoder(frames)
    assert decoder.generate(visual, "", settings) == reference.generate(visual, "", settings)


def test_rows_that_the_group_does_not_divide_stay():
    both = nn.Sequential(nn.Linear(12, 4), nn.Linear(16, 4))
    report = INT4.quantise(both)
    assert list(report.changed) == ["1"]
    assert report.skipped["Linear"]["parameters"] == 12 * 4 + 4
    assert INT4.bytes_of(both[0], both[0].weight) == 4 * 12 * 4
    with pytest.raises(AtomError, match="quant=8da4w-group_8 found nothing to change"):
        INT4.quantise(nn.Sequential(nn.Linear(12, 4)))


def test_a_file_without_quantised_weights_is_refused():
    with pytest.raises(AtomError, match="marked 8da8w but has no quantised weights"):
        INT8.unpack({}, {})
