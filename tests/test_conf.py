"""Every YAML composes and binds to its builder; every mistake is one line that names the key."""

import importlib
import inspect
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml
from omegaconf import OmegaConf

from atom_repro import config
from atom_repro.config.command import LOADING
from atom_repro.config.interruption import NOTICE
from atom_repro.datatypes import AtomError
from atom_repro.study import overrides
from atom_repro.study.overrides import plan_stages

PRIMARIES = sorted(p.stem for p in config.CONF.glob("*.yaml") if p.stem != "base")
CODE = sorted(
    p for p in config.CONF.glob("*/*.yaml") if "_target_" in (yaml.safe_load(p.read_text()) or {})
)


@pytest.mark.parametrize("primary", PRIMARIES)
def test_every_primary_composes(primary):
    assert config.to_dict(config.compose(primary, []))


@pytest.mark.parametrize("path", CODE, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_code_group_binds_to_its_builder(path):
    node = yaml.safe_load(path.read_text())
    module, name = node.pop("_target_").rsplit(".", 1)
    builder = getattr(importlib.import_module(module), name)
    signature = inspect.signature(builder)
    assert all(p.kind is p.KEYWORD_ONLY for p in signature.parameters.values())
    signature.bind(**node)
    assert set(node) == set(signature.parameters), "a YAML lists every argument"
    hints = get_type_hints(builder)
    for key, value in node.items():
        if not (isinstance(value, str) and value.startswith("${")):
            assert _is(value, hints[key]), f"{key}: {value!r} is not {hints[key]}"


def _is(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if get_origin(hint) is UnionType:
        return any(_is(value, part) for part in get_args(hint))
    kind = get_origin(hint) or hint
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


@pytest.mark.parametrize(
    ("primary", "override", "said"),
    [
        ("finetune", "train.max_stepz=3", "train.max_stepz; did you mean train.max_steps?"),
        ("finetune", "train.max_steps=abc", "train.max_steps: value 'abc' of type 'str'"),
        ("finetune", "model.encoder.widht=3", "did you mean model.encoder.width?"),
        ("finetune", "model.encoder.width=wide", "model.encoder.width=wide is text; "
         "model.encoder.width takes a whole number (such as 192)"),
        ("finetune", "model.encoder.width=1.5", "takes a whole number"),
        ("finetune", "model.encoder=3", "takes a group of keys"),
        ("finetune", "model=llava", "unknown choice model=llava; model is one of"),
        ("finetune", "quant=int8", "quant is not a choice of this command"),
        ("caption", "quant.linear=3", "quant.linear=3 is a whole number"),
        ("caption", "bogus", "'bogus'"),
        ("pipeline", "pipeline.margin=0.1", "the chosen pipeline has no margin; it is a setting of "
         "pipeline=localisation"),
        ("sweep", "grid.batch_size=3", "grid.batch_size: invalid value assigned: int is not"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_the_key(primary, override, said):
    overrides = [override] if "linear" not in override else ["quant=int8", override]
    with pytest.raises(AtomError) as caught:
        config.compose(primary, overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words", ["first a dog, then it's night", "a: b = {c}", "${oops}", 'say "hello"', "back\\slash"]
)
def test_a_persons_sentence_reaches_the_program_as_it_is(words):
    from atom_repro.config.command import _quoted

    cfg = config.compose("pipeline", [_quoted(f"prompt={words}", ("prompt",), ())])
    assert config.to_dict(cfg)["prompt"] == words


@pytest.mark.parametrize(
    ("primary", "key"),
    [
        ("pipeline", "paths.work"), ("caption", "from_predictions"), ("convert", "sources.whole"),
        ("finetune", "checkpoint.folder"), ("pipeline", "videos"),
    ],
)  # fmt: skip
def test_a_path_reaches_the_program_as_it_is(primary, key):
    path = "/a b,c/x=1 (2)/{3}/l'été/[4]: new"
    from atom_repro.config.command import _PATHS, _quoted

    cfg = config.compose(primary, [_quoted(f"{key}={path}", (), _PATHS)])
    assert OmegaConf.select(cfg, key) == path


def test_a_path_may_refer_to_a_setting():
    from atom_repro.config.command import _PATHS, _quoted

    folder = _quoted("checkpoint.folder=${paths.work}/rate=${train.learning_rate}", (), _PATHS)
    cfg = config.compose("finetune", ["paths.work=w", folder])
    assert cfg.checkpoint.folder == "w/rate=0.005"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "a dog"], "write prompt='a dog'"),
        (["--videos=here"], "write videos='here'"),
        (["-seed", "3"], "write seed='3'"),
    ],
)
def test_a_setting_with_dashes_is_told_how_it_is_written(arguments, said):
    from atom_repro.config.command import _check_dashes

    with pytest.raises(AtomError, match="settings have no dashes") as caught:
        _check_dashes("pipeline", arguments)
    assert said in str(caught.value)
    for passed in ([], ["seed=1"], ["--help", "--multirun", "seed=1,2"]):
        _check_dashes("pipeline", passed)


def test_right_overrides_pass():
    cfg = config.compose("finetune", ["model.encoder.dropout=0", "seed=4", "scale=smoke"])
    assert (cfg.model.encoder.dropout, cfg.seed, cfg.train.max_steps) == (0, 4, 20)


def test_components_are_named_by_the_user():
    named = "train.components={visual.clip: frozen, decoder: lora}"
    cfg = config.compose("finetune", [named])
    assert config.to_dict(cfg)["train"]["components"] == {
        "visual.clip": "frozen",
        "decoder": "lora",
    }
    cfg = config.compose("finetune", ["train.components.decoder=frozen"])
    assert config.to_dict(cfg)["train"]["components"] == {"decoder": "frozen"}


@pytest.mark.parametrize(
    "path",
    sorted((config.CONF / "experiment").glob("*/*.yaml")),
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_every_experiment_is_a_delta_of_its_command(path):
    primary, name = path.parent.name, f"{path.parent.name}/{path.stem}"
    changed = config.to_dict(config.compose(primary, [f"experiment={name}"]))
    assert changed != config.to_dict(config.compose(primary, []))
    with pytest.raises(AtomError):
        config.compose("audit" if primary == "finetune" else "finetune", [f"experiment={name}"])


def test_a_study_gives_each_stage_what_it_knows():
    stages = plan_stages("reproduce", ["quant=int8", "train.max_steps=200", "seed=1"])
    by_module = {s.module: s.overrides for s in stages}
    assert by_module["train.finetune"] == ("train.max_steps=200", "seed=1")
    assert by_module["eval.caption"] == ("quant=int8", "seed=1")
    assert by_module["eval.report"] == ()
    assert [s.module for s in stages].count("eval.caption") == 1
    assert [s.module for s in plan_stages("reproduce", [])].count("eval.caption") == 2


def test_a_study_leaves_out_what_cannot_run(monkeypatch):
    fast = "device_bench.latency engine=executorch quant=8da8w pipeline=assembly"
    assert fast in map(str, plan_stages("reproduce", []))
    for override in ("device=cuda", "engine=eager", "quant=int8"):
        assert fast not in " ".join(map(str, plan_stages("reproduce", [override])))
    monkeypatch.setattr(overrides.importlib.util, "find_spec", lambda name: None)
    assert fast not in map(str, plan_stages("reproduce", []))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.max_stepz=2", "no stage knows train.max_stepz; did you mean train.max_steps?"),
        ("train.max_steps=abc", "train.max_steps: value 'abc'"),
        ("quant=int3", "unknown choice quant=int3"),
        ("nonsense", "an override is key=value"),
        ("--multirun", "belongs to a single command"),
    ],
)
def test_a_study_refuses_before_any_work(override, said):
    with pytest.raises(AtomError) as caught:
        plan_stages("reproduce", [override])
    assert said in str(caught.value)


def test_help_needs_no_torch():
    code = (
        "import sys, runpy; sys.argv = ['finetune', '--help']\n"
        "try: runpy.run_module('train.finetune', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "max_steps" in done.stdout
    assert "python -m train.finetune train.max_steps=200" in done.stdout[:1500]


@pytest.mark.parametrize(
    ("imported", "said"),
    [
        ("omegaconf", [NOTICE]),
        ("hydra.types", [NOTICE]),
        ("numpy", [LOADING, NOTICE]),
        ("torch.types", [LOADING, NOTICE]),
    ],
)
def test_ctrl_c_while_libraries_are_imported_is_one_line(imported, said, tmp_path):
    command = ["-X", "importtime", "-m", "eval.caption", "scale=smoke", f"paths.work={tmp_path}"]
    ours, terminal = pty.openpty()
    process = subprocess.Popen([sys.executable, *command], stderr=terminal)
    os.close(terminal)
    lines = []
    with os.fdopen(ours, encoding="utf-8") as stream, suppress(OSError):  # where the terminal ends
        for line in stream:
            name = line.rpartition("|")[2].strip()
            if not line.startswith("import time:") and name:
                lines.append(name)
            if name == imported:  # that module is there, and others are not
                process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert lines == [text.strip() for text in said]


@pytest.mark.parametrize("dataset", ["msrvtt", "msvd", "didemo"])
def test_the_papers_recipe(dataset):
    cfg = config.compose("finetune", [f"experiment=finetune/paper_{dataset}"])
    train = cfg.train
    assert train.batch_size * train.accumulate == 128
    assert (train.learning_rate, train.epochs, train.visual_learning_rate) == (2e-5, 10, None)
    assert (cfg.model.encoder.frames, cfg.model.encoder.image_size) == (6, 224)
    assert (cfg.generation.beams, cfg.generation.max_new_tokens) == (4, 23)
    assert (cfg.scale.name, cfg.model.name) == ("paper", "mplug2plus")
    assert cfg.augmentation._target_ == "atom_repro.training.augmentation.mplug2.build"
    assert f".{dataset}." in cfg.dataset._target_


def test_the_released_recipe():
    cfg = config.compose("finetune", ["experiment=finetune/mplug2_released"])
    train = cfg.train
    assert train.batch_size * train.accumulate == 64
    assert (train.learning_rate, train.visual_learning_rate) == (2e-5, 2e-6)
    assert (cfg.model.name, cfg.model.encoder.frames, train.epoch0_quirk) == ("mplug2", 16, True)
