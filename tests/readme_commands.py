"""The README's commands, and how a test runs one: shrunk, in folders of its own."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from command import command

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = re.findall(r"^    ((?:make|python -m) .*)$", (ROOT / "README.md").read_text(), re.M)
RUN_BY_CI = ("make setup", "make check", "make test")
WHOLE, NARROWS = "make reproduce", 'make reproduce ARGS="quant=int8 train.max_steps=200"'
STANDIN = "python -m device_bench.standin"
DEMO, NEEDS_PHONE = "make device-demo", "make device-bench HOST=auto"
RUN_APART = (WHOLE, STANDIN, DEMO, NEEDS_PHONE)  # NARROWS begins like the first
NEEDS_GPU = "device=cuda"
# What other commands of the README, or other tests, do too with other settings.
REPEATS = (
    "make smoke", "variants=switches", "variants=hosts", "runtime.decode_batch=4",
    "sessions pipeline=assembly", "engine=executorch quant=8da8w pipeline=assembly", "make systems",
    "peers model.encoder.layers=4 model.decoder.layers=4",
    "train.finetune model=tiny_mplug2", "device_bench.contention",
)  # fmt: skip
NEED_DATA = ("make table7", "make human-captions")
NEED_WEIGHTS = ("python -m train.convert",)
# These build on nothing that another command left.
ALONE = (
    'make reproduce ARGS="dry_run=true"', "make help", "make doctor", "make systems",
    "make audit", "make data-check",
    "python -m train.finetune", "python -m device_bench.storage",
    "python -m device_bench.training_step", "python -m device_bench.peers",
    "python -m device_bench.contention",
)  # fmt: skip
SCALED = (
    "train.finetune", "eval.caption", "eval.retrieval", "eval.tasks", "eval.pipeline",
    "device_bench.latency", "device_bench.compare", "device_bench.sessions",
    "device_bench.endurance", "device_bench.training_step", "device_bench.contention",
)  # fmt: skip


# What shrinks a study further than scale=smoke does: one layer (half a minute of export each), one
# thread, two of the three residencies.
SHALLOW = ("model.encoder.layers=1", "model.decoder.layers=1")
SMALL = (*SHALLOW, "train.threads=1", "residencies=[resident,reload_stage]")
# A study without the stage that exports modules, which `test_study` has: an export takes a minute.
NO_EXPORT = "device=cpu"


def shrunk(text: str, folder: Path) -> list[str]:
    """The command as the README has it, with folders of its own and, where it is long, smoke."""
    for long, short in (
        ("max_steps=200", "max_steps=5"),
        ("repeats=10", "repeats=1"),
        (
            "sessions pipeline=assembly",
            "sessions pipeline=assembly residencies=[resident,reload_stage]",
        ),
        ("model=mplug2plus", "model=tiny_mplug2plus"),
        ("device_bench.training_step", "device_bench.training_step most_clips=2 limits_s=0.02"),
        (
            "device_bench.peers",
            "device_bench.peers model=tiny_mplug2plus rounds=1 limits_s=0.02 "
            "only=[torch_fp32,torchao_int8]",
        ),
        (
            "device_bench.contention",
            'device_bench.contention rounds=1 busy=[0] workers=[2] \'training=["scale=smoke",'
            '"train.max_steps=4","train.image_steps=0","train.validation_every=4",'
            '"train.validation_clips=2"]\'',
        ),
        (
            "compare experiment=compare/full_size",
            "compare experiment=compare/full_size model=tiny_mplug2plus limits=false repeats=1",
        ),
        # An export takes three minutes beside other tests; those of variants=switches are long.
        ("compare 'only=[eager_fp32,executorch_int8]'", "compare 'only=[eager_fp32,eager_int8]'"),
        ("videos=DIR", f"videos={folder}/videos"),
        ("train.finetune", "train.finetune train.max_steps=4 train.validation_every=4"),
    ):
        text = text.replace(long, short)
    words = shlex.split(text)
    paths = [f"paths.work={folder}/work", f"paths.results={folder}/results"]
    if words[0] == "make":
        given = next((w.removeprefix("ARGS=") for w in words if w.startswith("ARGS=")), "")
        scale = {
            "reproduce": ["scale=smoke", *SMALL, NO_EXPORT],
            "smoke": ["quant=none", *SMALL],
            "device-demo": ["pipelines=[assembly]", "job_clips=2"],
            "systems": ["model=tiny_mplug2plus", "job_clips=2", "repeats=1", "limits_s=0.02"],
        }.get(words[1], [])
        words = [w for w in words if not w.startswith("ARGS=")]
        if words[1] == "help":
            return words
        return [*words, f"PYTHON={sys.executable}", "ARGS=" + " ".join([given, *scale, *paths])]
    shallow = () if words[2] == "device_bench.contention" else SHALLOW  # it has no model itself
    scale = ["scale=smoke", *shallow] if words[2] in SCALED else []
    scale += ["train.threads=1"] if words[2] == "train.finetune" else []
    return [sys.executable, *words[1:], *scale, *paths]


def run(words):
    """What the command prints; it must end well."""
    if words[:2] == [sys.executable, "-m"]:
        done = command(*words[2:])
    else:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
