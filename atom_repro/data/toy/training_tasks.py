"""Text to learn scripts, summaries and answers from: prompts of the generated world with targets.

The one decoder of captions also writes scripts, sums up and answers. Llama can before any
fine-tuning; the tiny decoder starts from nothing and learns it from these examples. They are
functions of (seed, step) and show only what training may show. Captions are as a captioner's:
varied, and now and then wrong. Targets follow the captions, which are all that a decoder is given:

- a script shows the clips that fit the request, in the request's order (in the clips' order
  where it has none, and within one wish), each scene once, by its first clip; clips that nobody
  asked for are left out;
- a scene's summary states what most of its captions state;
- a video's summary says its scenes in order;
- an answer is what the captions say.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from atom_repro import prompts
from atom_repro.data.toy.grammar import describe, glimpse, tell, usually
from atom_repro.data.toy.requests import (
    QUESTION_KINDS,
    Question,
    Wish,
    misread,
    question_about,
    say_request,
    wish_for,
)
from atom_repro.data.toy.world import Scene
from atom_repro.datatypes import AtomError, Clip

TextTask = Literal["script", "scene_summary", "video_summary", "answer", "visual_answer"]
TEXT_TASKS: tuple[TextTask, ...] = ("script", "scene_summary", "video_summary", "answer")

_MISREAD = 0.1
_MISREAD_IN_SCENE = 0.5
_TWICE = 0.3
_ORDERED = 0.7


@dataclass(frozen=True)
class TextExample:
    """`context` begins the prompt and is shared by all examples of a row; `clip` is the index of
    the training clip that a visual question is about."""

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
    """What the examples need of the generated data set: its training clips, and which scenes
    training may show."""

    def clips(self, split: str) -> list[Clip]: ...

    def training_scene(self, rng: random.Random) -> Scene: ...

    def may_train_on(self, scene: Scene) -> bool: ...


class ToyTasks:
    """Training examples of the text tasks, in rows that share their captions.

    Reading the captions is most of an example's cost, so each row asks several things about
    them, one after the other.

    Args:
        mix: share of each text task among the rows, in any unit.
        words: length of a row, about: it asks on until it has so many. Rows of one length
            waste little on padding.
        most_captions: in a prompt.
        easy_steps: the steps over which prompts grow from one caption to `most_captions`.
            Looking something up among captions is learned in a few hundred steps where short
            prompts come first, and hardly at all where they do not.
        seed: of the examples.
    """

    def __init__(
        self,
        dataset: TrainingScenes,
        *,
        mix: Mapping[str, float],
        words: int,
        most_captions: int,
        easy_steps: int,
        seed: int,
    ) -> None:
        unknown = sorted(set(mix) - set(TEXT_TASKS))
        if unknown or sum(mix.values()) <= 0:
            raise AtomError(f"the mix of text tasks {dict(mix)}: name some of {TEXT_TASKS}")
        self._dataset, self._mix, self._seed = dataset, dict(mix), seed
        self._words, self._most, self._easy_steps = words, most_captions, easy_steps

    def rows(self, step: int, count: int) -> list[Row]:
        """The text examples of a step: the same whenever they are asked for."""
        rng = random.Random(f"text/{self._seed}/{step}")
        tasks = rng.choices(TEXT_TASKS, [self._mix.get(task, 0.0) for task in TEXT_TASKS], k=count)
        most = self._most
        if step < self._easy_steps:
            most = 1 + self._most * step // self._easy_steps
        return [self._row(task, most, rng) for task in tasks]

    def visual_rows(self, step: int, count: int) -> list[Row]:
        """Questions about training clips, for visual tokens before the prompt."""
        rng = random.Random(f"visual/{self._seed}/{step}")
        return [self._about_a_clip(rng.randrange(len(self._shown)), rng) for _ in range(count)]

    @cached_property
    def _shown(self) -> list[list[Scene]]:
        """The scenes of each training clip."""
        return [
            [Scene.from_meta(scene) for scene in clip.meta["scenes"]]
            for clip in self._dataset.clips("train")
        ]

    def _row(self, task: TextTask, most: int, rng: random.Random) -> Row:
        if task == "scene_summary":
            return self._about_one_scene(most, rng)
        scenes = self._scenes(rng.randint(1, most), rng)
        if task == "video_summary":
            return self._about_a_video(scenes, rng)
        if task == "script" and len(scenes) < most and rng.random() < _TWICE:
            # Overlapping windows of a scene, seen alike or not.
            again = self._seen(rng.choice(scenes), _MISREAD, rng)
            scenes.insert(rng.randint(0, len(scenes)), again)
        context = prompts.context([describe([scene], rng) for scene in scenes])
        if task == "script":
            return self._filled([], lambda: _script(scenes, context, rng))
        return self._filled([], lambda: _answer(scenes, context, rng))

    def _filled(self, row: Row, make: Callable[[], TextExample | None]) -> Row:
        """The row with as many more examples as its length wants, and at least one in all.

        Nothing is asked twice, lest the last answer be the way to the next.
        """
        asked = {example.ask for example in row}
        words = sum(len(f"{e.ask} {e.target}".split()) for e in row)
        while not row or words + len(row[0].context.split()) < self._words:
            made = make()
            if made is not None and made.ask not in asked:
                row.append(made)
                asked.add(made.ask)
                words += len(f"{made.ask} {made.target}".split())
        return row

    def _scenes(self, count: int, rng: random.Random) -> list[Scene]:
        scenes: list[Scene] = []
        while len(scenes) < count:
            scene = self._dataset.training_scene(rng)
            if not any(same_scene(scene, other) for other in scenes):
                scenes.append(scene)
        return scenes

    def _seen(self, scene: Scene, chance: float, rng: random.Random) -> Scene:
        """The scene as a captioner takes it."""
        while rng.random() < chance:
            wrong = misread(scene, rng)
            if self._dataset.may_train_on(wrong):
                return wrong
        return scene

    def _views(self, scene: Scene, count: int, rng: random.Random) -> list[Scene]:
        """The scene as `count` captions take it: any of them may err, most are right in each
        attribute."""
        while True:
            views = [self._seen(scene, _MISREAD_IN_SCENE, rng) for _ in range(count)]
            told = zip(*(view.as_meta().values() for view in views), strict=True)
            truth = scene.as_meta().values()
            if all(2 * kind.count(true) > count for kind, true in zip(told, truth, strict=True)):
                return views

    def _about_one_scene(self, most: int, rng: random.Random) -> Row:
        """A summary of captions that disagree, and questions about what most of them show."""
        scene = self._dataset.training_scene(rng)
        views = self._views(scene, rng.randint(1, most), rng)
        context = prompts.context([describe([view], rng) for view in views])
        row = [TextExample("scene_summary", context, prompts.SUM_UP_SCENE, tell(scene))]
        return self._filled(row, lambda: _answer([scene], context, rng))

    def _about_a_video(self, scenes: Sequence[Scene], rng: random.Random) -> Row:
        captions = [
            tell(scene) if rng.random() < 0.5 else describe([scene], rng) for scene in scenes
        ]
        context = prompts.context(captions)
        said = say_in_order([glimpse(scene) for scene in scenes], rng)
        row = [TextExample("video_summary", context, prompts.SUM_UP_VIDEO, said)]
        return self._filled(row, lambda: _answer(scenes, context, rng))

    def _about_a_clip(self, clip: int, rng: random.Random) -> Row:
        return self._filled([], lambda: _answer(self._shown[clip], "", rng, clip))


def _script(scenes: Sequence[Scene], context: str, rng: random.Random) -> TextExample | None:
    """A request for some of the scenes and its script; None where chance chose wishes of which
    one scene fulfils two."""
    sources = rng.sample(scenes, min(len(scenes), rng.choice((1, 2, 2, 3))))
    wishes = [wish_for(scene, rng) for scene in sources]
    if any(sum(wish.fits(scene) for wish in wishes) > 1 for scene in scenes):
        return None
    ordered = len(wishes) > 1 and rng.random() < _ORDERED
    request = say_request(wishes, ordered=ordered, rng=rng)
    lines = [
        prompts.ScriptLine(i + 1, glimpse(scenes[i]))
        for i in clips_to_show(scenes, wishes, ordered)
    ]
    return TextExample("script", context, prompts.ask_script(request), prompts.script_text(lines))


def _answer(
    scenes: Sequence[Scene], context: str, rng: random.Random, clip: int | None = None
) -> TextExample | None:
    question = any_question(scenes, rng)
    if question is None:
        return None
    ask = prompts.visual_answer(question.text)
    task: TextTask = "answer" if clip is None else "visual_answer"
    return TextExample(task, context, ask, question.answer, clip)


def task_texts(dataset: TrainingScenes, *, rows: int, seed: int) -> list[str]:
    """Prompts and targets of every text task, for a tokenizer to learn from beside captions.

    Args:
        rows: lists of captions that are asked about; some hundreds hold every word.
    """
    tasks = ToyTasks(
        dataset,
        mix=dict.fromkeys(TEXT_TASKS, 1.0),
        words=150,
        most_captions=6,
        easy_steps=0,
        seed=seed,
    )
    made = tasks.rows(0, rows)
    return [text for row in made for example in row for text in (example.prompt, example.target)]


def same_scene(a: Scene, b: Scene) -> bool:
    """Whether two captions' scenes pass for one: the same things in the same place. Count and
    motion are what captions of overlapping windows disagree about."""
    return (a.place, a.things) == (b.place, b.things)


def clips_to_show(clips: Sequence[Scene], wishes: Sequence[Wish], ordered: bool) -> list[int]:
    """Indices of the clips that a script shows, in its order; see the module's text."""
    rounds = [[wish] for wish in wishes] if ordered else [list(wishes)]
    shown: list[int] = []
    for some in rounds:
        for i, clip in enumerate(clips):
            known = any(same_scene(clip, clips[j]) for j in shown)
            if not known and any(wish.fits(clip) for wish in some):
                shown.append(i)
    return shown


def any_question(scenes: Sequence[Scene], rng: random.Random) -> Question | None:
    """A question about one of the scenes; None where chance chose one that is ambiguous."""
    at = rng.randrange(len(scenes))
    others = [*scenes[:at], *scenes[at + 1 :]]
    return question_about(scenes[at], others, rng.choice(QUESTION_KINDS), rng)


def say_in_order(sentences: Sequence[str], rng: random.Random) -> str:
    """One sentence out of several: "first …, then …, finally …"."""
    if len(sentences) == 1:
        return sentences[0]
    first = usually(("first", "at first", "to begin with"), rng)
    last = usually(("finally", "and at last", "in the end"), rng)
    parts = [f"{first} {sentences[0]}"]
    for middle in sentences[1:-1]:
        parts.append(f"{usually(('then', 'next', 'after that'), rng)} {middle}")
    return ", ".join([*parts, f"{last} {sentences[-1]}"])
