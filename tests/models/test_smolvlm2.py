"""SmolVLM2 against transformers' own: pixels, prompt ids, logits, tokens; and in the engine."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm import processing_smolvlm as released
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import save_decoder, save_encoder
from atom_repro.datatypes import AtomError, Clip
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.models import smolvlm2
from atom_repro.models.generation import GenerationSettings, generate
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.quant import int8, none
from atom_repro.runtime.residency import module_loaders
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.runtime.schedule import SCHEDULES
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.video.file import write_video

ROOT = Path(__file__).parents[2]
TEXTS = ["User: describe the 2 red boats.", "Assistant: a red ball bounces on the beach"]
ASK = "Describe this in 12 words."
VIDEO = VisualTokens(torch.zeros(1, 12, 48), (4, 4, 4))


def small(*, tied=False):
    return smolvlm2.build(
        name="small_smolvlm2",
        prompt=ASK,
        encoder={
            "frames": 3, "image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 4,
            "mlp_width": 64, "shuffle": 2,
        },
        decoder={
            "vocabulary": 360, "width": 48, "layers": 2, "heads": 4, "kv_heads": 2,
            "head_width": 12, "mlp_width": 96, "rope_theta": 100000.0, "max_positions": 256,
            "tied": tied,
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def fast():
    """A byte-level BPE split as SmolLM2's is, with the special tokens of the prompt."""
    made = FastTokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    made.decoder = decoders.ByteLevel()
    specials = small().specials
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[
            specials.begin, specials.end, specials.pad, *specials.others, "<image>",
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(TEXTS * 3, trainer)
    return made


@pytest.fixture
def tokens(fast):
    return Tokenizer(fast, small().specials)


def monolith(model, fast):
    """The released architecture of the same numbers, random, with logits that matter."""
    seen, spoken = model.encoder, model.decoder
    config = SmolVLMConfig(
        vision_config={
            "hidden_size": seen.width, "intermediate_size": seen.mlp_width,
            "num_hidden_layers": seen.layers, "num_attention_heads": seen.heads,
            "image_size": seen.image_size, "patch_size": seen.patch_size,
        },
        text_config={
            "model_type": "llama", "vocab_size": spoken.vocabulary, "hidden_size": spoken.width,
            "intermediate_size": spoken.mlp_width, "num_hidden_layers": spoken.layers,
            "num_attention_heads": spoken.heads, "num_key_value_heads": spoken.kv_heads,
            "head_dim": spoken.head_width, "rms_norm_eps": spoken.norm_eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": spoken.rope_theta},
            "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
        },
        scale_factor=seen.shuffle,
        image_token_id=fast.token_to_id("<image>"),
        tie_word_embeddings=spoken.tied,
    )  # fmt: skip
    torch.manual_seed(0)
    whole = SmolVLMForConditionalGeneration(config).eval()
    for parameter in whole.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return whole


def split(whole, model):
    """Our two modules, built without memory and filled by the names of the released ones."""
    with torch.device("meta"):
        parts = {"encoder": model.make_encoder(), "decoder": model.make_decoder()}
    states = {"encoder": {}, "decoder": {}}
    for key, tensor in whole.state_dict().items():
        place = smolvlm2.released_key(key)
        if place is not None:
            states[place[0]][place[1]] = tensor
    for name, part in parts.items():
        part.load_state_dict(states[name], assign=True)
        part.init_buffers()
        part.eval()
    return parts["encoder"], parts["decoder"]


def chat(fast, text, frames):
    """Ids by transformers' template, image string and tokenizer."""
    content = [{"type": "image"}] * frames + [{"type": "text", "text": text}]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast)
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=released.DEFAULT_CHAT_TEMPLATE,
        add_generation_prompt=True,
        tokenize=False,
    )
    image = released.get_image_prompt_string(
        0,
        0,
        small().encoder.frame_tokens,
        smolvlm2.IMAGE_BOUNDARY,
        "<image>",
        smolvlm2.GLOBAL_IMAGE,
    )
    return tokenizer(written.replace("<image>", image))["input_ids"]


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8, generator=generator)


def normalised(pixels):
    return (pixels.float() / 255 - 0.5) / 0.5


@pytest.mark.parametrize(("size", "total"), [("256m", 256_484_928), ("500m", 507_482_304)])
def test_released_sizes_have_the_parameters_of_their_files(size, total):
    numbers = yaml.safe_load((ROOT / f"conf/model/smolvlm2_{size}.yaml").read_text())
    assert numbers.pop("_target_") == "atom_repro.models.smolvlm2.build"
    model = smolvlm2.build(**numbers)
    with torch.device("meta"):
        parts = (model.make_encoder(), model.make_decoder())
    assert sum(p.numel() for part in parts for p in part.parameters()) == total
    assert not list(parts[0].buffers())  # nothing that a file would not fill
    assert (model.encoder.frame_tokens, model.encoder.visual_tokens) == (64, 384)


def processed(pixels, *, resize):
    process = SmolVLMImageProcessorPil(
        size={"longest_edge": 128}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    images = [np.asarray(frame.permute(1, 2, 0)) for frame in pixels.flatten(0, 1)]
    made = process(images, do_resize=resize, return_tensors="np")["pixel_values"][0]
    return torch.as_tensor(np.stack(made))


def entering(pixels):
    """What the encoder gives its tower."""
    seen = []
    encoder = small().make_encoder()
    encoder.vision_model.embeddings.patch_embedding.register_forward_pre_hook(
        lambda _, args: seen.append(args[0])
    )
    encoder(pixels)
    return seen[0]


def test_pixels_are_those_of_the_released_processor(pixels):
    torch.testing.assert_close(entering(pixels), processed(pixels, resize=False), atol=1e-6, rtol=0)


def test_the_released_processor_resamples_what_has_its_size_already(pixels):
    """It goes to four times the size and back (Lanczos), which the encoder leaves out: nothing on
    a smooth picture, 18 of 255 levels on average on noise, the hardest case."""
    slope = torch.arange(32, dtype=torch.uint8) * 8
    smooth = slope.expand(1, 3, 3, 32, 32)
    level = 2 / 255
    error = (entering(smooth) - processed(smooth, resize=True)).abs().mean()
    assert error < level
    error = (entering(pixels) - processed(pixels, resize=True)).abs().mean()
    assert 10 * level < error < 25 * level


@pytest.mark.parametrize("text", [ASK, "", " boats\n\n2 of them", "é"])
@pytest.mark.parametrize("visual", [True, False])
def test_prompt_ids_are_those_of_the_released_template(fast, tokens, text, visual):
    image = fast.token_to_id("<image>")
    ids = small().prompt_ids(tokens, text, visual=VIDEO if visual else None)
    assert [image if i == smolvlm2.VISUAL_PLACEHOLDER else i for i in ids] == chat(
        fast, text, 3 * visual
    )
    assert ids.count(smolvlm2.VISUAL_PLACEHOLDER) == small().encoder.visual_tokens * visual


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("visual", [True, False])
def test_logits_and_greedy_tokens_are_those_of_the_whole_model(fast, tokens, pixels, tied, visual):
    model = small(tied=tied)
    whole = monolith(model, fast)
    encoder, decoder = split(whole, model)
    clips = pixels[:1] if not visual else pixels
    given = {"pixel_values": normalised(clips)} if visual else {}
    ids = torch.tensor([chat(fast, ASK, 3 * visual)] * len(clips))
    settings = GenerationSettings(beams=1, max_new_tokens=12, forbid_end=False)
    with torch.inference_mode():
        expected = whole(input_ids=ids, **given).logits[:, -1]
        seen = encoder(clips) if visual else None
        prompt = model.prompt_ids(tokens, ASK, visual=seen)
        logits, _ = decoder.start(seen, prompt)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        said = whole.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **given,
            do_sample=False, max_new_tokens=12, eos_token_id=tokens.end_id,
            pad_token_id=tokens.pad_id,
        )[:, ids.shape[1] :]  # fmt: skip
    ours = generate(decoder, decoder.start(seen, prompt), end_id=tokens.end_id, settings=settings)
    for mine, theirs in zip(ours, said.tolist(), strict=True):
        end = theirs.index(tokens.end_id) if tokens.end_id in theirs else len(theirs)
        assert list(mine.token_ids) == theirs[:end]


@torch.inference_mode()
def test_interleaved_clips_say_what_they_say_apart(fast, tokens, pixels):
    """One clip and one text of another length, step by step in turns on one decoder."""
    model = small()
    encoder, decoder = split(monolith(model, fast), model)
    starts = (
        (encoder(pixels[:1]), model.prompt_ids(tokens, ASK, visual=VIDEO)),
        (None, model.prompt_ids(tokens, "boats", visual=None)),
    )

    def steps(seen, ids):
        logits, cache = decoder.start(seen, ids)
        cache.open(1, 8)
        said = []
        for _ in range(8):
            said.append(int(logits.argmax()))
            yield said
            logits = decoder.step(torch.tensor([[said[-1]]]), cache)

    apart = [list(steps(*start))[-1] for start in starts]
    turns = list(zip(*(steps(*start) for start in starts), strict=True))
    assert list(turns[-1]) == apart
    assert apart[0] != apart[1]


@pytest.mark.parametrize("tied", [False, True])
def test_a_released_folder_maps_whole(fast, tmp_path, tied):
    model = small(tied=tied)
    monolith(model, fast).save_pretrained(tmp_path)
    smolvlm2.check_released(model, json.loads((tmp_path / "config.json").read_text()))
    places = [smolvlm2.released_key(key) for key in load_file(tmp_path / "model.safetensors")]
    mapped = {"encoder": set(), "decoder": set()}
    for part, key in places:
        mapped[part].add(key)
    assert len(places) == len(mapped["encoder"]) + len(mapped["decoder"])
    assert mapped["encoder"] == set(model.make_encoder().state_dict())
    # A tied head is not in the file; the decoder's own `tied` says where it comes from.
    assert mapped["decoder"] | set(model.make_decoder().tied) == set(
        model.make_decoder().state_dict()
    )
    assert smolvlm2.released_key("model.text_model.rotary_emb.inv_freq") is None
    assert smolvlm2.released_key("model.new.weight") == ("decoder", "model.new.weight")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("", "model_type", "idefics3"),
        ("", "scale_factor", 4),
        ("", "tie_word_embeddings", True),
        ("text_config", "vocab_size", 361),
        ("text_config", "num_hidden_layers", 3),
        ("vision_config", "patch_size", 16),
    ],
)
def test_a_config_of_other_numbers_is_refused_by_key(fast, part, key, value):
    model = small()
    config = monolith(model, fast).config.to_dict()
    (config[part] if part else config)[key] = value
    with pytest.raises(AtomError, match=key):
        smolvlm2.check_released(model, config)


def test_a_config_of_another_rope_is_refused(fast):
    config = monolith(small(), fast).config.to_dict()
    config["text_config"]["rope_parameters"]["rope_theta"] = 10000.0
    with pytest.raises(AtomError, match="rope_theta"):
        smolvlm2.check_released(small(), config)


@pytest.mark.parametrize(("key", "value"), [("heads", 5), ("image_size", 40), ("shuffle", 3)])
def test_numbers_that_do_not_fit_are_refused(key, value):
    with pytest.raises(AtomError, match=key):
        smolvlm2.SmolEncoderConfig(**(small().encoder.to_dict() | {key: value}))


def test_tokens_without_a_frame_have_no_place_in_the_prompt(tokens):
    outside = VisualTokens(torch.zeros(1, 12, 48), (4, 4))
    with pytest.raises(AtomError, match="8 of 12 visual tokens belong to a frame"):
        small().prompt_ids(tokens, ASK, visual=outside)


def test_frames_of_another_size_are_refused(pixels):
    with pytest.raises(AtomError, match=r"model\.encoder\.image_size=32"):
        small().make_encoder()(pixels[..., :16])


@pytest.fixture
def smol_saved(tmp_path, fast, tokens):
    model = small()
    encoder, decoder = split(monolith(model, fast), model)
    save_encoder(tmp_path / "ck/fp32/encoder", model, encoder, none.build(), "random")
    save_decoder(tmp_path / "ck/fp32/decoder", model, decoder, tokens, none.build(), "random")
    return Checkpoint(tmp_path / "ck")


def test_int8_changes_the_tower_too_and_reads_back(smol_saved, pixels):
    model = small()
    quantiser = int8.build(linear="dynamic", embedding="weight_only")
    report = smol_saved.prepare(quantiser, model)
    changed = report["encoder"]["changed"]
    assert {"connector.modality_projection.proj", "vision_model.embeddings.position_embedding",
            "vision_model.encoder.layers.1.mlp.fc2"} <= set(changed)  # fmt: skip
    assert {"lm_head", "model.embed_tokens"} <= set(report["decoder"]["changed"])
    seen = {
        q.name: EagerEngine().load_encoder(smol_saved.encoder(q), model, q)(pixels).tokens
        for q in (none.build(), quantiser)
    }
    error = (seen["int8"] - seen["fp32"]).norm() / seen["fp32"].norm()
    assert 0 < error < 0.1
    settings = GenerationSettings(beams=2, max_new_tokens=5, forbid_end=True)
    said = (
        EagerEngine()
        .load_decoder(smol_saved.decoder(quantiser), model, quantiser)
        .generate(VisualTokens(seen["int8"], VIDEO.frame_tokens), ASK, settings)
    )
    assert [len(s.token_ids) for s in said] == [5, 5]


@pytest.mark.parametrize(
    "quantiser", [none.build(), int8.build(linear="dynamic", embedding="weight_only")]
)
def test_all_arms_give_the_same_tokens(smol_saved, tmp_path, quantiser):
    model = small()
    smol_saved.prepare(quantiser, model)
    clips = []
    for i in range(2):
        made = np.random.default_rng(i).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        write_video(tmp_path / f"{i}.mp4", made, 4)
        clips.append(Clip("toy", "test", str(i), tmp_path / f"{i}.mp4"))
    settings = GenerationSettings(beams=2, max_new_tokens=4, forbid_end=True)
    outputs = []
    for residency, schedule in itertools.product(("resident", "reload_input"), SCHEDULES):
        loaders = module_loaders(
            EagerEngine(), smol_saved, quantiser, model, Cpu(), embedder="embedded"
        )
        arm = Arm(residency=residency, schedule=schedule)
        with Runtime(arm, loaders, Cpu(), model=model, settings=settings) as runtime:
            captions = [made.token_ids for made in runtime.caption(clips)]
            script = runtime.write("a red ball", settings, stage="script", item="p")
        outputs.append((captions, script))
    assert all(output == outputs[0] for output in outputs)
    assert outputs[0][0][0] != outputs[0][0][1]  # the clips differ, so do their captions


def test_training_lowers_the_caption_loss_through_the_tower(tokens, pixels):
    torch.manual_seed(0)
    model = small()
    joined = CaptioningModel(model, tokens, word_weight=0.0, text_weight=0.0, rarity=[0.0] * 360)
    rows = [[*tokens.encode(t), tokens.end_id][-12:] for t in TEXTS]
    length = max(len(row) for row in rows)
    captions = torch.tensor([[row + [tokens.pad_id] * (length - len(row))] for row in rows])
    optimiser = torch.optim.AdamW(joined.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss, _ = joined({"frames": pixels, "captions": captions, "caption_weight": 1.0})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert joined.encoder.vision_model.embeddings.patch_embedding.weight.grad.abs().max() > 0


def test_a_tokenizer_trained_here_has_the_tokens_of_the_prompt():
    model = small()
    made = Tokenizer.train(TEXTS * 3, 330, model.specials)
    assert model.prompt_ids(made, ASK, visual=VIDEO).count(smolvlm2.VISUAL_PLACEHOLDER) == 12
