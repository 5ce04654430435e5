"""mPLUG2 against transformers' BERT, its counts, and its place behind the engine's protocols."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import TEXTS
from transformers import BertConfig, BertLMHeadModel

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import TRAINED, save_decoder, save_encoder
from atom_repro.config import CONF
from atom_repro.datatypes import AtomError, Clip
from atom_repro.device.cpu import Cpu
from atom_repro.engines.eager import EagerEngine
from atom_repro.models import mplug2, mplug2plus
from atom_repro.models.generation import GenerationSettings, generate
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.universal import UniversalLayers
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.pipelines import search
from atom_repro.quant import int8, none
from atom_repro.runtime.residency import RESIDENCIES, module_loaders
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.runtime.schedule import SCHEDULES
from atom_repro.training.components import component_of
from atom_repro.video.file import write_video

END = 1


def small(*, released_text=False, prompt="", **encoder):
    numbers = {
        "frames": 3, "image_size": 32, "patch_size": 8, "stem": "patch", "width": 32, "layers": 2,
        "heads": 4, "mlp_width": 64, "temporal_width": 16, "grid": 4, "connector": "universal",
        "latents": 5,
    }  # fmt: skip
    decoder = {
        "vocabulary": 300, "width": 32, "layers": 2, "heads": 4, "mlp_width": 64,
        "max_positions": 40,
    }  # fmt: skip
    return mplug2.build(
        name="small2", form="folded", prompt=prompt, released_text=released_text,
        encoder=numbers | encoder, decoder=decoder,
    )  # fmt: skip


def wake(*modules):
    """Random weights everywhere, biases and norms too, so that each of them matters."""
    for module in modules:
        for parameter in module.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return modules[0].eval()


def berts():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40, is_decoder=True,
        add_cross_attention=True, layer_norm_eps=1e-12,
    )  # fmt: skip
    theirs = wake(BertLMHeadModel(config))
    ours = small().make_decoder().eval()
    ours.load_state_dict(theirs.state_dict())  # strict: the names are the same
    return ours, theirs


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prefill_and_cached_steps_equal_transformers():
    ours, theirs = berts()
    visual, ids = torch.randn(2, 7, 32), torch.randint(0, 300, (2, 12))
    expected = theirs(ids, encoder_hidden_states=visual).logits
    close(ours.cls(ours(ids[:, None], VisualTokens(visual)))[:, 0], expected)
    for clip in range(2):
        logits, cache = ours.start(VisualTokens(visual[clip : clip + 1]), ids[clip, :3].tolist())
        close(logits[0], expected[clip, 2])
        cache.open(beams=1, max_new_tokens=9)
        for t in range(3, 12):
            logits = ours.step(ids[clip : clip + 1, t : t + 1], cache)
            close(logits[0, 0], expected[clip, t])


@torch.no_grad()
def test_texts_of_a_clip_read_one_copy_of_its_video():
    ours, theirs = berts()
    visual, ids = torch.randn(2, 7, 32), torch.randint(0, 300, (2, 3, 6))
    expected = theirs(
        ids.flatten(0, 1), encoder_hidden_states=visual.repeat_interleave(3, 0)
    ).logits
    close(ours.cls(ours(ids, VisualTokens(visual))).flatten(0, 1), expected)


@torch.no_grad()
def test_beams_keep_their_own_past_when_reordered_and_clips_leave():
    ours, theirs = berts()
    visual, first, second = torch.randn(3, 7, 32), *torch.randint(0, 300, (2, 3, 2))
    _, cache = ours.start(VisualTokens(visual), [0, 9])
    cache.open(beams=2, max_new_tokens=3)
    ours.step(first, cache)
    parent, kept = torch.tensor([[1, 0], [1, 1], [0, 0]]), torch.tensor([0, 2])
    cache.reorder(parent)
    cache.keep(kept)
    logits = ours.step(second[kept], cache)
    for row, clip in enumerate(kept.tolist()):
        for beam in range(2):
            past = [0, 9, int(first[clip, parent[clip, beam]]), int(second[clip, beam])]
            whole = theirs(torch.tensor([past]), encoder_hidden_states=visual[clip][None])
            close(logits[row, beam], whole.logits[0, -1])


@torch.no_grad()
def test_beam_search_equals_a_plain_one_over_transformers_logits():
    ours, theirs = berts()
    visual = torch.randn(3, 7, 32)
    settings = GenerationSettings(beams=3, max_new_tokens=6, forbid_end=True)
    made = generate(ours, ours.start(VisualTokens(visual), [0]), end_id=END, settings=settings)
    for clip in range(3):
        begin = torch.zeros(3, 1, dtype=torch.long)
        totals, seen = torch.tensor([0.0, -torch.inf, -torch.inf]), visual[clip].expand(3, -1, -1)
        for _ in range(6):  # no beam can end: the K best of all continuations, re-run whole
            logits = theirs(begin, encoder_hidden_states=seen).logits[:, -1].log_softmax(-1)
            logits[:, END] = -torch.inf
            totals, index = (totals[:, None] + logits).flatten().topk(3)
            begin = torch.cat((begin[index // 300], (index % 300)[:, None]), dim=1)
        assert made[clip].token_ids == tuple(begin[0, 1:].tolist())
        assert made[clip].log_prob == pytest.approx(float(totals[0]), abs=1e-4)


def plain_released_search(decoder, visual, settings):
    """mPLUG-2's search for one clip: everything re-run, lists, the K best of all each step."""
    beams, stored = [((0,), 0.0)], []
    for step in range(settings.max_new_tokens):
        scored = []
        for ids, total in beams:
            rows = decoder.cls(decoder(torch.tensor([[ids]]), VisualTokens(visual)))[
                0, 0, -1
            ].log_softmax(-1)
            for token, log_prob in enumerate(rows.tolist()):
                if token != END or step >= settings.min_new_tokens:
                    scored.append((total + log_prob, (*ids, token)))
        scored.sort(key=lambda s: -s[0])
        beams = [(ids, total) for total, ids in scored[: settings.beams]]
        last = step + 1 == settings.max_new_tokens
        for ids, total in beams:
            if last or ids[-1] == END:
                stored.append((total / ((5 + step + 1) / 6) ** 0.6, ids[1:]))
        if beams[0][0][-1] == END:
            break
    score, ids = max(stored, key=lambda s: s[0])
    return score, ids[:-1] if ids[-1] == END else ids


@torch.no_grad()
def test_the_released_search_equals_a_plain_one():
    settings = GenerationSettings(
        beams=3, max_new_tokens=8, min_new_tokens=2, length_penalty=0.6, length_rule="gnmt",
        finished="stay",
    )  # fmt: skip
    lengths, inner = set(), 0
    for seed in range(6):
        ours, _ = berts()
        torch.manual_seed(seed)
        ours.cls.predictions.bias[END] += 2.0 + seed
        visual = torch.randn(2, 7, 32)
        made = generate(ours, ours.start(VisualTokens(visual), [0]), end_id=END, settings=settings)
        for clip in range(2):
            score, ids = plain_released_search(ours, visual[clip : clip + 1], settings)
            assert made[clip].token_ids == ids
            assert made[clip].score == pytest.approx(score, abs=1e-4)
            lengths.add(len(ids))
            inner += END in ids
    assert min(lengths) >= 2
    assert len(lengths) > 1


@pytest.mark.parametrize(
    "wrong", [{"length_rule": "best"}, {"finished": "go"}, {"min_new_tokens": -1}]
)
def test_impossible_settings_are_named(wrong):
    with pytest.raises(AtomError, match=f"generation.{next(iter(wrong))}"):
        GenerationSettings(**wrong)


@torch.no_grad()
def test_interleaved_clips_do_not_disturb_each_other():
    ours, _ = berts()
    visual, tokens = torch.randn(2, 7, 32), torch.randint(0, 300, (2, 6))

    def steps(order):
        caches, out = {}, {0: [], 1: []}
        for clip in (0, 1):
            _, caches[clip] = ours.start(VisualTokens(visual[clip : clip + 1]), [0] * (clip + 1))
            caches[clip].open(1, 6)
        for clip in order:
            t = len(out[clip])
            out[clip].append(ours.step(tokens[clip : clip + 1, t : t + 1], caches[clip]))
        return [torch.stack(out[clip]) for clip in (0, 1)]

    apart = steps([0] * 6 + [1] * 6)
    mixed = steps([0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0])
    assert all(torch.equal(a, b) for a, b in zip(apart, mixed, strict=True))


@torch.no_grad()
def test_universal_layers_equal_layers_of_transformers():
    torch.manual_seed(0)
    ours = wake(
        UniversalLayers(latents=5, width=32, heads=4, mlp_width=64, dropout=0.1, broadcast=True)
    )
    _, theirs = berts()
    pool, bcast = theirs.bert.encoder.layer
    for layer, mine in ((pool, ours.pool), (bcast, ours.bcast)):
        layer.load_state_dict(mine.state_dict())
        layer.attention.self.is_causal = False
    video = torch.randn(2, 11, 32)
    gathered = pool(ours.latents.expand(2, -1, -1), None, video)
    read = bcast(video, None, gathered)
    expected = F.layer_norm(video + read, (32,), ours.out.weight, ours.out.bias, 1e-12)
    close(ours(video), expected)


def test_counts_of_the_released_model():
    numbers = yaml.safe_load((CONF / "model/mplug2.yaml").read_text())
    del numbers["_target_"]
    model = mplug2.build(**numbers)
    with torch.device("meta"):
        encoder, decoder = model.make_encoder(), model.make_decoder()
    counts = [sum(p.numel() for p in m.parameters()) for m in (encoder, encoder.uni, decoder)]
    assert counts == [353_781_760 + 33_646_592, 33_646_592, 234_425_146]
    assert counts[0] + counts[2] == 621_853_498
    assert model.encoder.visual_tokens == 1 + 256 * 6
    parts = mplug2.released_parameter_counts(model)
    assert list(parts.values()) == [
        354_568_192, 123_650_305, 359_335_936, 434_903_040, 251_267_898, 2_048,
    ]  # fmt: skip
    assert sum(parts.values()) == 1_523_727_419


@pytest.mark.parametrize(
    ("connector", "total", "tokens"),
    [
        ("pooled", 1_591_697_408, 97),
        ("mlp", 1_595_893_760, 97),
        ("resampler", 1_608_545_280, 50),
        ("universal", 1_625_344_000, 97),
    ],
)
def test_counts_of_connectors_of_mplug2plus(connector, total, tokens):
    numbers = yaml.safe_load((CONF / "model/mplug2plus.yaml").read_text())
    del numbers["_target_"]
    numbers["encoder"]["connector"] = connector
    model = mplug2plus.build(**numbers)
    with torch.device("meta"):
        modules = model.make_encoder(), model.make_decoder()
    assert sum(p.numel() for m in modules for p in m.parameters()) == total
    assert model.encoder.visual_tokens == tokens


@pytest.mark.parametrize(
    ("family", "total"), [(mplug2plus, 41_884_160), (mplug2, 58_876_928)], ids=["plus", "mplug2"]
)
def test_small_models_are_what_their_files_say(family, total):
    name = family.__name__.rpartition(".")[2]
    numbers = yaml.safe_load((CONF / f"model/small_{name}.yaml").read_text())
    del numbers["_target_"]
    model = family.build(**numbers)
    with torch.device("meta"):
        modules = model.make_encoder(), model.make_decoder()
    assert sum(p.numel() for m in modules for p in m.parameters()) == total
    assert model.encoder.visual_tokens == 97


@pytest.mark.parametrize("connector", ["pooled", "mlp", "resampler", "universal"])
@torch.no_grad()
def test_connectors_emit_what_they_say_in_both_forms(frames, connector):
    torch.manual_seed(0)
    model = small(connector=connector, grid=2)
    encoder = wake(model.make_encoder())
    visual = encoder(frames)
    assert visual.tokens.shape == (4, model.encoder.visual_tokens, 32)
    assert visual.frame_tokens == (() if connector == "resampler" else (4,) * 3)
    reference = mplug2.VideoEncoder(model.encoder, "reference").eval()
    reference.load_state_dict(encoder.checkpoint_state_dict())
    close(reference(frames).tokens, visual.tokens)
    names = [f"encoder.{n}" for n, _ in encoder.named_parameters()]
    component_of(model, [*names, "decoder.cls.predictions.bias"])


def test_an_unknown_connector_is_named():
    with pytest.raises(AtomError, match=r"model\.encoder\.connector='none'"):
        small(connector="none")


def test_numbers_of_a_pooled_encoder_are_those_of_older_files():
    numbers = small(connector="pooled").encoder.to_dict()
    assert not {"connector", "latents", "universal_dropout"} & set(numbers)
    assert small().encoder.to_dict()["connector"] == "universal"


VIDEO = VisualTokens(torch.zeros(1, 7, 32))


class Words:
    """A tokenizer of letters, with [CLS] 0, [SEP] 1, [PAD] 2."""

    begin_id, end_id, pad_id = 0, 1, 2

    def encode(self, text):
        return [ord(c) - 20 for c in text]

    def special_id(self, token):
        raise AssertionError(token)


def test_released_text_joins_prompt_and_caption_and_cuts():
    model = small(released_text=True, prompt="a video of")
    ids = model.training_ids(Words(), "It's RED")
    assert ids == [*Words().encode("a video ofits red"), 1]
    assert len(model.training_ids(Words(), "x" * 50)) == 19  # and [CLS]
    assert model.training_ids(Words(), "x" * 50)[-1] != 1
    assert model.prompt_ids(Words(), model.prompt, visual=VIDEO) == [0]
    assert model.clean_text("a video of a cat a video of a dog") == "a dog"
    assert small().clean_text("a video of a dog") == "a video of a dog"
    plain = small(prompt="a video of")
    assert plain.training_ids(Words(), "red") == [*Words().encode("red"), 1]
    assert plain.prompt_ids(Words(), "so", visual=VIDEO) == [0, *Words().encode("so")]


@pytest.mark.parametrize("released", [True, False])
def test_caption_loss_is_that_of_transformers(released):
    ours, theirs = berts()
    model = small(released_text=released, prompt="a video of")
    captions = [[model.training_ids(Words(), c) for c in two] for two in (("it", "up"), ("no", ""))]
    padded = torch.full((2, 2, 19), 2)
    expected = []
    visual = torch.randn(2, 7, 32)
    head = [0] if released else [0, *Words().encode("a video of")]
    for b, r in itertools.product(range(2), range(2)):
        ids = captions[b][r]
        padded[b, r, : len(ids)] = torch.tensor(ids)
        whole = torch.tensor([[*head, *ids]])
        labels = whole.clone()
        labels[:, : 3 if released else len(head)] = -100
        logits = theirs(whole, encoder_hidden_states=visual[b][None]).logits
        nll = F.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="none", ignore_index=-100)
        expected.append(nll[labels[0, 1:] != -100])
    loss = model.caption_loss(ours, VisualTokens(visual), padded, Words())
    close(loss, torch.cat(expected).mean())
    if released:
        with pytest.raises(AtomError, match=r"model\.released_text=true and a caption"):
            model.caption_loss(ours, VisualTokens(visual), padded[:, :, 3:], Words())


@pytest.fixture
def saved2(tmp_path):
    torch.manual_seed(0)
    model = small()
    tokenizer = Tokenizer.train(TEXTS * 3, 300, model.specials)
    encoder, decoder = model.make_encoder(), model.make_decoder()
    wake(encoder, decoder)
    folder = tmp_path / "ck"
    save_encoder(folder / "fp32/encoder", model, encoder, none.build(), "random")
    save_decoder(folder / "fp32/decoder", model, decoder, tokenizer, none.build(), "random")
    return folder, model


def test_files_and_int8_give_back_the_modules(saved2, frames):
    folder, model = saved2
    encoder = EagerEngine().load_encoder(folder / "fp32/encoder", model)
    decoder = EagerEngine().load_decoder(folder / "fp32/decoder", model)
    predictions = decoder.network.cls.predictions
    assert predictions.decoder.weight is decoder.network.bert.embeddings.word_embeddings.weight
    assert predictions.decoder.bias is predictions.bias
    settings = GenerationSettings(max_new_tokens=5, forbid_end=True)
    seen = decoder.generate(encoder(frames), "", settings)
    assert decoder.generate(encoder(frames), "", settings) == seen
    with pytest.raises(AtomError, match="model=small2 cannot write without a video"):
        decoder.generate(None, "two boats", settings)

    recipe = int8.build(linear="dynamic", embedding="weight_only")
    report = recipe.quantise(encoder.network)
    assert "uni.bcast.crossattention.self.key" in report.changed
    assert "cls.predictions.decoder" in recipe.quantise(decoder.network).changed
    save_encoder(folder / "int8/encoder", model, encoder.network, recipe, "random")
    save_decoder(
        folder / "int8/decoder", model, decoder.network, decoder.tokenizer, recipe, "random"
    )
    again = EagerEngine().load_encoder(folder / "int8/encoder", model, recipe)
    writing = EagerEngine().load_decoder(folder / "int8/decoder", model, recipe)
    visual = encoder(frames)
    assert torch.equal(again(frames).tokens, visual.tokens)
    assert writing.generate(visual, "", settings) == decoder.generate(visual, "", settings)


def test_all_arms_of_an_engine_give_the_same_tokens(saved2, tmp_path):
    folder, model = saved2
    clips = []
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        write_video(tmp_path / f"{i}.mp4", pixels, 4)
        clips.append(Clip("toy", "test", f"{i}", tmp_path / f"{i}.mp4"))
    outputs = []
    for residency, schedule in itertools.product(RESIDENCIES, SCHEDULES):
        loaders = module_loaders(
            EagerEngine(), Checkpoint(folder), TRAINED, model, Cpu(), embedder="embedded"
        )
        pipeline = search.build(
            name="retrieval", session="indexed", prompts=["a boat"], most=10, least_similarity=-1.0
        )
        settings = GenerationSettings(max_new_tokens=6, forbid_end=True)
        arm = Arm(residency=residency, schedule=schedule)
        with Runtime(arm, loaders, Cpu(), model=model, settings=settings) as runtime:
            answers = pipeline.run(runtime, clips)
        outputs.append([p.token_ids for a in answers for p in a.predictions])
    assert all(output == outputs[0] for output in outputs)
