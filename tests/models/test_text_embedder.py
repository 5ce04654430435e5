"""The real all-MiniLM-L6-v2: known similarities, the contract, and errors a user can mend."""

import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from atom_repro.datatypes import AtomError
from atom_repro.models.text_embedder import TextEmbedder, load_text_embedder, source_files


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    return load_text_embedder()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield


def test_vectors_have_unit_length_and_meaning(embedder: TextEmbedder) -> None:
    vectors = embedder(["a dog runs", "a puppy is running", "the stock market fell"])
    assert vectors.shape == (3, embedder.dimensions) == (3, 384)
    assert vectors.dtype == torch.float32 and not vectors.is_inference()
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    near, far = (vectors[0] @ vectors[1]).item(), (vectors[0] @ vectors[2]).item()
    assert near > 0.7 > 0.2 > far


def test_each_distinct_text_is_embedded_once(
    embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    encode = embedder._encoder.encode

    def counting(texts: list[str], **settings: Any) -> torch.Tensor:
        seen.extend(texts)
        return encode(texts, **settings)

    monkeypatch.setattr(embedder._encoder, "encode", counting)
    vectors = embedder(["a cat", "a dog and a very long tail", "a cat", "a cat"])
    assert seen == ["a cat", "a dog and a very long tail"]
    assert torch.equal(vectors[0], vectors[2]) and torch.equal(vectors[0], vectors[3])
    alone = torch.cat([embedder([text]) for text in ("a cat", "a dog and a very long tail")])
    torch.testing.assert_close(vectors[:2], alone, atol=1e-5, rtol=0)


def test_blank_texts_are_refused_and_none_are_fine(embedder: TextEmbedder) -> None:
    for blank in ("", "  ", "\n\t"):
        with pytest.raises(ValueError, match="1 texts are blank, such as number 1"):
            embedder(["a cat", blank])
    with pytest.raises(ValueError, match="not a string"):
        embedder("a cat")
    assert embedder([]).shape == (0, 384)


def test_loading_asks_no_network_and_shows_nothing(
    no_network: None, capfd: pytest.CaptureFixture[str]
) -> None:
    load_text_embedder()(["a cat"])
    assert capfd.readouterr() == ("", "")


def test_loading_leaves_progress_bars_as_they_were() -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging

    logging.enable_progress_bar()
    before = are_progress_bars_disabled()
    load_text_embedder()
    assert logging.is_progress_bar_enabled()
    assert are_progress_bars_disabled() == before


def test_the_module_is_the_one_that_runs() -> None:
    embedder = load_text_embedder()
    before = embedder(["a cat"])
    with torch.no_grad():
        embedder.module.get_submodule("encoder.layer.0.output.dense").weight.zero_()
    changed = embedder(["a cat"])
    assert not torch.allclose(before, changed)

    embedder.module = load_text_embedder().module
    torch.testing.assert_close(embedder(["a cat"]), before)


def test_bytes_are_those_of_the_weights(embedder: TextEmbedder) -> None:
    (weights,) = source_files()
    assert weights.name == "model.safetensors"
    # The file adds a header of some kilobytes; nothing else differs in fp32.
    assert 0 < weights.stat().st_size - embedder.parameter_bytes() < 20_000


def test_bytes_follow_int8_of_either_kind(embedder: TextEmbedder) -> None:
    linear = sum(
        module.weight.numel()
        for module in embedder.module.modules()
        if isinstance(module, nn.Linear)
    )
    floor = embedder.parameter_bytes() - 3 * linear  # int8 weights, and not one scale
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    torchao = load_text_embedder()
    quantize_(torchao.module, Int8WeightOnlyConfig())
    assert floor < torchao.parameter_bytes() < 1.01 * floor

    eager = load_text_embedder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of its eager quantisation
        eager.module = torch.ao.quantization.quantize_dynamic(eager.module, {nn.Linear})
    # One scale a tensor, in a Python float: no bytes of a tensor.
    assert floor <= eager.parameter_bytes() < 1.01 * floor


def test_a_folder_is_a_source(tmp_path: Path, embedder: TextEmbedder) -> None:
    (weights,) = source_files()
    copy = tmp_path / "minilm"
    copy.symlink_to(weights.parent)
    assert source_files(str(copy)) == [copy / "model.safetensors"]
    assert torch.equal(load_text_embedder(str(copy))(["a cat"]), embedder(["a cat"]))


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AtomError, match=r"no text embedder folder .*/absent; use \"embedded\""):
        load_text_embedder(str(tmp_path / "absent"))
    with pytest.raises(AtomError, match=r"no \*\.safetensors under"):
        source_files(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(AtomError, match="does not load as a sentence transformer"):
        load_text_embedder(str(tmp_path))


def test_a_hub_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for source in ("nobody/no-such-model", "a..b/c"):
        with pytest.raises(AtomError, match=f"{source} is no folder .*embedded") as caught:
            load_text_embedder(source)
        assert "\n" not in str(caught.value)
