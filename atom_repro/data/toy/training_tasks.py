"""Training examples of the text tasks on the generated data set: prompts and targets.

The captioning decoder also writes scripts, summaries and answers. Llama can without fine-tuning;
the tiny decoder starts from random weights and learns it from these examples. They are functions
of (seed, step) and contain only scenes that training may show. Captions vary and are sometimes
wrong, like a captioner's. Targets follow the captions, the decoder's only input:

- a script shows the clips that match the request, in the request's order (in the clips' order
  where it has none, and within one filter), each scene once, by its first clip; other clips are
  left out;
- a scene's summary states what most of its captions state;
- a video's summary describes its scenes in order;
- an answer is what the captions state.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from atom_repro import prompts
from atom_repro.data.toy.grammar import canonical_caption, choose_phrase, describe, static_caption
from atom_repro.data.toy.requests import (
    QUESTION_KINDS,
    Question,
    SceneFilter,
    question_about,
    request_text,
    sample_filter,
    with_wrong_attribute,
)
from atom_repro.data.toy.world import Scene
from atom_repro.datatypes import AtomError, Clip

TextTask = Literal["script", "scene_summary", "video_summary", "answer", "visual_answer"]
TEXT_TASKS: tuple[TextTask, ...] = ("script", "scene_summary", "video_summary", "answer")

_CAPTION_ERROR_PROBABILITY = 0.1
_SUMMARY_ERROR_PROBABILITY = 0.5
_REPEATED_SCENE_PROBABILITY = 0.3
_ORDERED_PROBABILITY = 0.7


@dataclass(frozen=True)
class TextExample:
    """Prompt and target of a text task. `context` begins the prompt and is shared by all examples
    of a row, `ask` is the rest; `clip` is the index of a visual question's training clip."""

    task: TextTask
    context: str
    ask: str
    target: str
    clip: int | None = None

    @property
    def prompt(self) -> str:
        return self.context + self.ask


Row = list[TextExample]


class TrainingScenes(Protocol):
    """Interface of the generated data set for training examples: training clips, and the scenes
    that training may show."""

    def clips(self, split: str) -> list[Clip]: ...

    def training_scene(self, rng: random.Random) -> Scene: ...

    def may_train_on(self, scene: Scene) -> bool: ...


class ToyTasks:
    """Training examples of the text tasks, in rows that share their captions.

    The captions are most of an example's tokens, so each row asks several things about them.

    Args:
        mix: share of each text task among the rows, in any unit.
        row_words: approximate length of a row: examples are added until it has so many words.
            Rows of equal length need little padding.
        max_captions: maximum number of captions in a prompt.
        curriculum_steps: the steps over which prompts grow from one caption to
            `max_captions`. Retrieval among captions is learned in a few hundred steps if short
            prompts come first, and hardly at all otherwise.
        seed: of the random draws.
    """

    def __init__(
        self,
        dataset: TrainingScenes,
        *,
        mix: Mapping[str, float],
        row_words: int,
        max_captions: int,
        curriculum_steps: int,
        seed: int,
    ) -> None:
        unknown = sorted(set(mix) - set(TEXT_TASKS))
        if unknown or sum(mix.values()) <= 0:
            raise AtomError(
                f"the mix of text tasks {dict(mix)}: give shares of some of {TEXT_TASKS}"
            )
        self._dataset, self._mix, self._seed = dataset, dict(mix), seed
        self._row_words, self._max_captions, self._curriculum_steps = (
            row_words,
            max_captions,
            curriculum_steps,
        )

    def rows(self, step: int, count: int) -> list[Row]:
        """Return `count` rows of text examples, a function of the seed and `step`."""
        rng = random.Random(f"text/{self._seed}/{step}")
        tasks = rng.choices(TEXT_TASKS, [self._mix.get(task, 0.0) for task in TEXT_TASKS], k=count)
        max_captions = self._max_captions
        if step < self._curriculum_steps:
            max_captions = 1 + self._max_captions * step // self._curriculum_steps
        return [self._row(task, max_captions, rng) for task in tasks]

    def visual_rows(self, step: int, count: int) -> list[Row]:
        """Return `count` rows of questions about training clips, to follow visual tokens."""
        rng = random.Random(f"visual/{self._seed}/{step}")
        return [
            self._visual_question_row(rng.randrange(len(self._clip_scenes)), rng)
            for _ in range(count)
        ]

    @cached_property
    def _clip_scenes(self) -> list[list[Scene]]:
        """The scenes of each training clip."""
        return [
            [Scene.from_meta(scene) for scene in clip.meta["scenes"]]
            for clip in self._dataset.clips("train")
        ]

    def _row(self, task: TextTask, max_captions: int, rng: random.Random) -> Row:
        if task == "scene_summary":
            return self._scene_summary_row(max_captions, rng)
        scenes = self._draw_scenes(rng.randint(1, max_captions), rng)
        if task == "video_summary":
            return self._video_summary_row(scenes, rng)
        if (
            task == "script"
            and len(scenes) < max_captions
            and rng.random() < _REPEATED_SCENE_PROBABILITY
        ):
            # Overlapping windows of a scene, with the same caption or another.
            repeated = self._with_caption_errors(
                rng.choice(scenes), _CAPTION_ERROR_PROBABILITY, rng
            )
            scenes.insert(rng.randint(0, len(scenes)), repeated)
        context = prompts.context([describe([scene], rng) for scene in scenes])
        if task == "script":
            return self._filled_row([], lambda: _script_example(scenes, context, rng))
        return self._filled_row([], lambda: _answer_example(scenes, context, rng))

    def _filled_row(self, row: Row, draw_example: Callable[[], TextExample | None]) -> Row:
        """Add examples until the row has its number of words, and at least one example.

        No question is repeated, as its first answer would give the second away.
        """
        asks = {example.ask for example in row}
        words = sum(len(f"{e.ask} {e.target}".split()) for e in row)
        while not row or words + len(row[0].context.split()) < self._row_words:
            example = draw_example()
            if example is not None and example.ask not in asks:
                row.append(example)
                asks.add(example.ask)
                words += len(f"{example.ask} {example.target}".split())
        return row

    def _draw_scenes(self, count: int, rng: random.Random) -> list[Scene]:
        scenes: list[Scene] = []
        while len(scenes) < count:
            scene = self._dataset.training_scene(rng)
            if not any(same_scene(scene, other) for other in scenes):
                scenes.append(scene)
        return scenes

    def _with_caption_errors(self, scene: Scene, probability: float, rng: random.Random) -> Scene:
        """The scene as captioned: with a wrong attribute at about the given probability."""
        while rng.random() < probability:
            wrong = with_wrong_attribute(scene, rng)
            if self._dataset.may_train_on(wrong):
                return wrong
        return scene

    def _caption_variants(self, scene: Scene, count: int, rng: random.Random) -> list[Scene]:
        """`count` captioned versions of a scene, of which most are right in each attribute."""
        while True:
            variants = [
                self._with_caption_errors(scene, _SUMMARY_ERROR_PROBABILITY, rng)
                for _ in range(count)
            ]
            stated = zip(*(variant.as_meta().values() for variant in variants), strict=True)
            truth = scene.as_meta().values()
            if all(2 * s.count(true) > count for s, true in zip(stated, truth, strict=True)):
                return variants

    def _scene_summary_row(self, max_captions: int, rng: random.Random) -> Row:
        """A summary of captions that disagree, and questions about what most of them state."""
        scene = self._dataset.training_scene(rng)
        variants = self._caption_variants(scene, rng.randint(1, max_captions), rng)
        context = prompts.context([describe([variant], rng) for variant in variants])
        row = [
            TextExample("scene_summary", context, prompts.SUM_UP_SCENE, canonical_caption(scene))
        ]
        return self._filled_row(row, lambda: _answer_example([scene], context, rng))

    def _video_summary_row(self, scenes: Sequence[Scene], rng: random.Random) -> Row:
        captions = [
            canonical_caption(scene) if rng.random() < 0.5 else describe([scene], rng)
            for scene in scenes
        ]
        context = prompts.context(captions)
        summary = join_in_order([static_caption(scene) for scene in scenes], rng)
        row = [TextExample("video_summary", context, prompts.SUM_UP_VIDEO, summary)]
        return self._filled_row(row, lambda: _answer_example(scenes, context, rng))

    def _visual_question_row(self, clip: int, rng: random.Random) -> Row:
        return self._filled_row([], lambda: _answer_example(self._clip_scenes[clip], "", rng, clip))


def _script_example(
    scenes: Sequence[Scene], context: str, rng: random.Random
) -> TextExample | None:
    """Draw a request for some of the scenes, with its script; None if a scene matches two of its
    filters."""
    sources = rng.sample(scenes, min(len(scenes), rng.choice((1, 2, 2, 3))))
    filters = [sample_filter(scene, rng) for scene in sources]
    if any(sum(f.matches(scene) for f in filters) > 1 for scene in scenes):
        return None
    ordered = len(filters) > 1 and rng.random() < _ORDERED_PROBABILITY
    request = request_text(filters, ordered=ordered, rng=rng)
    lines = [
        prompts.ScriptLine(i + 1, static_caption(scenes[i]))
        for i in clips_to_show(scenes, filters, ordered)
    ]
    return TextExample(
        "script", context, prompts.script_instruction(request), prompts.script_text(lines)
    )


def _answer_example(
    scenes: Sequence[Scene], context: str, rng: random.Random, clip: int | None = None
) -> TextExample | None:
    question = random_question(scenes, rng)
    if question is None:
        return None
    ask = prompts.visual_answer(question.text)
    task: TextTask = "answer" if clip is None else "visual_answer"
    return TextExample(task, context, ask, question.answer, clip)


def task_texts(dataset: TrainingScenes, *, rows: int, seed: int) -> list[str]:
    """Prompts and targets of every text task, to train a tokenizer on beside captions.

    Args:
        rows: number of rows of examples; some hundreds contain every word.
    """
    tasks = ToyTasks(
        dataset,
        mix=dict.fromkeys(TEXT_TASKS, 1.0),
        row_words=150,
        max_captions=6,
        curriculum_steps=0,
        seed=seed,
    )
    return [
        text
        for row in tasks.rows(0, rows)
        for example in row
        for text in (example.prompt, example.target)
    ]


def same_scene(a: Scene, b: Scene) -> bool:
    """Whether two captioned scenes count as one: the same things in the same place. Captions of
    overlapping windows may disagree about count and motion."""
    return (a.place, a.things) == (b.place, b.things)


def clips_to_show(
    clips: Sequence[Scene], filters: Sequence[SceneFilter], ordered: bool
) -> list[int]:
    """Indices of the clips that a script shows, in its order; see the module's docstring."""
    groups = [[f] for f in filters] if ordered else [list(filters)]
    selected: list[int] = []
    for group in groups:
        for i, clip in enumerate(clips):
            repeated = any(same_scene(clip, clips[j]) for j in selected)
            if not repeated and any(f.matches(clip) for f in group):
                selected.append(i)
    return selected


def random_question(scenes: Sequence[Scene], rng: random.Random) -> Question | None:
    """Draw a question about one of the scenes; None if it is ambiguous."""
    index = rng.randrange(len(scenes))
    others = [*scenes[:index], *scenes[index + 1 :]]
    return question_about(scenes[index], others, rng.choice(QUESTION_KINDS), rng)


def join_in_order(sentences: Sequence[str], rng: random.Random) -> str:
    """Join sentences into one: "first …, then …, finally …"."""
    if len(sentences) == 1:
        return sentences[0]
    first = choose_phrase(("first", "at first", "to begin with"), rng)
    last = choose_phrase(("finally", "and at last", "in the end"), rng)
    parts = [f"{first} {sentences[0]}"]
    for middle in sentences[1:-1]:
        parts.append(f"{choose_phrase(('then', 'next', 'after that'), rng)} {middle}")
    return ", ".join([*parts, f"{last} {sentences[-1]}"])
