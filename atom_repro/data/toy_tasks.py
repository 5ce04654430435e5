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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from atom_repro import prompts
from atom_repro.data.toy import ToyDataset
from atom_repro.data.toy_grammar import describe, glimpse, tell, usually
from atom_repro.data.toy_requests import (
    QUESTION_KINDS,
    Question,
    Wish,
    misread,
    question_about,
    say_request,
    wish_for,
)
from atom_repro.data.toy_world import Scene
from atom_repro.datatypes import AtomError

TextTask = Literal["script", "scene_summary", "video_summary", "answer", "visual_answer"]
TEXT_TASKS: tuple[TextTask, ...] = ("script", "scene_summary", "video_summary", "answer")

_MISREAD = 0.1
_MISREAD_IN_SCENE = 0.3
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


class ToyTasks:
    """Training examples of the text tasks, in rows that share their captions.

    Reading the captions is most of an example's cost, so each row asks several things about
    them, one after the other.

    Args:
        mix: share of each text task among the rows, in any unit.
        turns: examples a row.
        most_captions: in a prompt, at least 2.
        seed: of the examples.
    """

    def __init__(
        self,
        dataset: ToyDataset,
        *,
        mix: Mapping[str, float],
        turns: int,
        most_captions: int,
        seed: int,
    ) -> None:
        unknown = sorted(set(mix) - set(TEXT_TASKS))
        if unknown or sum(mix.values()) <= 0:
            raise AtomError(f"the mix of text tasks {dict(mix)}: name some of {TEXT_TASKS}")
        self._dataset, self._mix, self._seed = dataset, dict(mix), seed
        self._turns, self._most = turns, most_captions

    def rows(self, step: int, count: int) -> list[Row]:
        """The text examples of a step: the same whenever they are asked for."""
        rng = random.Random(f"text/{self._seed}/{step}")
        tasks = rng.choices(TEXT_TASKS, [self._mix.get(task, 0.0) for task in TEXT_TASKS], k=count)
        return [self._row(task, rng) for task in tasks]

    def visual_rows(self, step: int, count: int) -> list[Row]:
        """Questions about training clips, for visual tokens before the prompt."""
        rng = random.Random(f"visual/{self._seed}/{step}")
        rows = []
        for _ in range(count):
            clip = rng.randrange(len(self._shown))
            row: Row = []
            while len(row) < self._turns:
                question = any_question(self._shown[clip], rng)
                if question is not None:
                    ask = prompts.visual_answer(question.text)
                    row.append(TextExample("visual_answer", "", ask, question.answer, clip))
            rows.append(row)
        return rows

    @cached_property
    def _shown(self) -> list[list[Scene]]:
        """The scenes of each training clip."""
        return [
            [Scene.from_meta(scene) for scene in clip.meta["scenes"]]
            for clip in self._dataset.clips("train")
        ]

    def _row(self, task: TextTask, rng: random.Random) -> Row:
        if task == "scene_summary":
            return self._about_one_scene(rng)
        scenes = self._scenes(rng.randint(2, self._most), rng)
        if task == "video_summary":
            return self._about_a_video(scenes, rng)
        if task == "script" and rng.random() < _TWICE:
            # Overlapping windows of a scene, seen alike or not.
            scenes.insert(
                rng.randint(0, len(scenes)), self._seen(rng.choice(scenes), _MISREAD, rng)
            )
            del scenes[self._most :]
        captions = [describe([scene], rng) for scene in scenes]
        context = prompts.context(captions)
        row: Row = []
        while len(row) < self._turns:
            made = _script(scenes, rng) if task == "script" else _answer(scenes, rng)
            if made is not None:
                row.append(TextExample(task, context, *made))
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

    def _about_one_scene(self, rng: random.Random) -> Row:
        """A summary of captions of which most are right, and questions about what they show."""
        scene = self._dataset.training_scene(rng)
        count = rng.randint(1, min(self._most, 5))
        seen = [scene] * count
        for i in rng.sample(range(count), (count - 1) // 2):
            seen[i] = self._seen(scene, _MISREAD_IN_SCENE, rng)
        context = prompts.context([describe([view], rng) for view in seen])
        row = [TextExample("scene_summary", context, prompts.SUM_UP_SCENE, tell(scene))]
        while len(row) < self._turns:
            made = _answer([scene], rng)
            if made is not None:
                row.append(TextExample("answer", context, *made))
        return row

    def _about_a_video(self, scenes: Sequence[Scene], rng: random.Random) -> Row:
        captions = [
            tell(scene) if rng.random() < 0.5 else describe([scene], rng) for scene in scenes
        ]
        context = prompts.context(captions)
        said = say_in_order([glimpse(scene) for scene in scenes], rng)
        row = [TextExample("video_summary", context, prompts.SUM_UP_VIDEO, said)]
        while len(row) < self._turns:
            made = _answer(scenes, rng)
            if made is not None:
                row.append(TextExample("answer", context, *made))
        return row


def _script(scenes: Sequence[Scene], rng: random.Random) -> tuple[str, str] | None:
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
    return prompts.ask_script(request), prompts.script_text(lines)


def _answer(scenes: Sequence[Scene], rng: random.Random) -> tuple[str, str] | None:
    question = any_question(scenes, rng)
    return None if question is None else (prompts.visual_answer(question.text), question.answer)


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
    """One sentence out of two to five: "first …, then …, finally …"."""
    first = usually(("first", "at first", "to begin with"), rng)
    last = usually(("finally", "and at last", "in the end"), rng)
    parts = [f"{first} {sentences[0]}"]
    for middle in sentences[1:-1]:
        parts.append(f"{usually(('then', 'next', 'after that'), rng)} {middle}")
    return ", ".join([*parts, f"{last} {sentences[-1]}"])
