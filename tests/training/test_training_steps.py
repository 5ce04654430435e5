"""A step is the same for any number of processes, and its weights make one mean of its parts."""

import numpy as np
import pytest

from atom_repro.config import build
from atom_repro.config.composition import compose
from atom_repro.data.toy.training_tasks import TextExample
from atom_repro.datatypes import AtomError
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import SpecialTokens
from atom_repro.training.augmentation import none, shift
from atom_repro.training.batches import CaptionBatches, FrameBank
from atom_repro.training.image_batches import ImageBatches, image_steps
from atom_repro.training.text_batches import TextBatches
from atom_repro.training.training_steps import Processes, TrainingSteps

CAPTIONS = [[[10 + i] * (1 + i) + [2]] for i in range(8)]
TEXTS = ["a red boat", "two stars at night", "it"]


@pytest.fixture
def bank(tmp_path):
    made = FrameBank([], frames=3, per_segment=2, size=8, folder=tmp_path / "bank", name="name")
    made.pixels = np.random.default_rng(0).integers(0, 255, (8, 6, 8, 8, 3), np.uint8)
    return made


@pytest.fixture
def steps(bank):
    tokenizer = Tokenizer.train(TEXTS * 3, 300, SpecialTokens())

    def rows(step, count):
        rng = np.random.default_rng(step)
        return [
            [TextExample("visual_answer", "", "question:", TEXTS[k], int(k))]
            for k in rng.integers(0, 3, count)
        ]

    def make(**changed):
        captions = CaptionBatches(
            bank,
            CAPTIONS,
            batch_size=4,
            captions_per_clip=1,
            augmentation=shift.build(pixels=2),
            pad_id=0,
            seed=0,
        )
        text = TextBatches(rows, tokenizer, batch_size=2, max_length=99)
        return TrainingSteps(captions, **({"text": text, "questions": text} | changed))

    return make


def test_one_process_with_one_micro_batch_weighs_one(steps):
    (part,) = steps()(3)
    assert {part[f"{name}_weight"] for name in ("caption", "text", "asked")} == {1.0}
    assert "targets" not in part


@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_share_out_the_same_step(steps, accumulate):
    whole = steps(accumulate=accumulate)(5)
    shares = [steps(accumulate=accumulate, processes=Processes(rank, 2))(5) for rank in range(2)]
    for micro, part in enumerate(whole):
        for name, value in part.items():
            if not name.endswith("_weight"):
                halves = [share[micro][name] for share in shares]
                assert np.array_equal(np.concatenate(halves), value), name


def test_ids_that_the_loss_leaves_out_weigh_nothing(steps):
    """As of mPLUG2's prompt, whose first words its released code masks."""
    parts = steps(accumulate=2, unscored_ids=1)(7)
    scored = [(part["captions"][:, :, 1:] != 0).sum() for part in parts]
    weights = [part["caption_weight"] for part in parts]
    assert weights == pytest.approx([2 * count / sum(scored) for count in scored])
    assert weights != [part["caption_weight"] for part in steps(accumulate=2)(7)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_make_the_mean_over_all_tokens(steps, accumulate):
    """Of any numbers, here of the ids themselves."""
    parts = [
        part
        for rank in range(2)
        for part in steps(accumulate=accumulate, processes=Processes(rank, 2))(7)
    ]
    for ids, weight, target in (
        ("captions", "caption_weight", lambda p: p["captions"] != 0),
        ("text", "text_weight", lambda p: p["text_target"]),
        ("asked", "asked_weight", lambda p: p["asked_target"]),
    ):
        every = np.concatenate([p[ids][target(p)] for p in parts])
        got = np.mean([p[weight] * p[ids][target(p)].mean() for p in parts])
        assert got == pytest.approx(every.mean())
        assert len({round(p[weight], 6) for p in parts}) > 1, (
            "the parts are alike: it proves nothing"
        )


def test_text_comes_every_so_many_steps(steps):
    made = steps(text_every=3)
    assert ["text" in made(step)[0] for step in range(7)] == [True, False, False] * 2 + [True]
    assert "asked" not in steps(questions=None)(0)[0]


def test_what_cannot_be_shared_out_is_refused_by_key(steps):
    with pytest.raises(AtomError, match=r"train\.batch_size=4 cannot be .* over 3 processes"):
        steps(processes=Processes(0, 3))(0)


def test_the_first_steps_are_single_frames_of_many_clips(steps, bank):
    captions = steps().captions
    with_images = steps(images=ImageBatches(captions, size=12), image_steps=2, accumulate=2)
    first, second = with_images(1)
    assert first.keys() == {"images", "image_captions"}
    assert first["images"].shape == (12, 3, 8, 8)
    assert not np.array_equal(first["images"], second["images"])
    # The captions are all those of the frame's clip, whichever process reads it.
    halves = [
        steps(images=ImageBatches(captions, size=12), image_steps=2, accumulate=2,
              processes=Processes(rank, 2))(1)[0]
        for rank in range(2)
    ]  # fmt: skip
    for name, whole in first.items():
        assert np.array_equal(np.concatenate([half[name] for half in halves]), whole)
    still = CaptionBatches(bank, CAPTIONS, batch_size=4, captions_per_clip=1,
                           augmentation=none.build(), pad_id=0, seed=0)  # fmt: skip
    images = ImageBatches(still, size=12)(0, slice(None))
    for pixels, ids in zip(images["images"], images["image_captions"], strict=True):
        frame = pixels.transpose(1, 2, 0)
        (clip,) = {c for c in range(8) for f in bank.pixels[c] if np.array_equal(f, frame)}
        assert ids[0, : len(CAPTIONS[clip][0])].tolist() == CAPTIONS[clip][0]
    # Those of captions are as if there had been none before them.
    (expected, _), (part, _) = steps(accumulate=2)(0), with_images(2)
    assert np.array_equal(part["frames"], expected["frames"])


def test_no_step_has_text_tasks_where_none_is_asked_for(steps):
    assert all("text" not in steps(text_every=0)(step)[0] for step in range(3))


def test_steps_of_images_are_for_a_stem_that_begins_with_nothing():
    def count(*overrides):
        cfg = compose("finetune", list(overrides))
        return image_steps(cfg.train, build(cfg.model))

    assert count("train.image_steps=7") == 7
    assert count("train.image_steps=7", "train.start=somewhere") == 0
    assert count("train.image_steps=7", "model.encoder.stem=patch") == 0
    assert count("train.image_steps=7", "model=smolvlm2_256m") == 0
