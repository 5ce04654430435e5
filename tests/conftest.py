"""What tests share: small models (random weights, the real architecture), a planned data set."""

import math
import os
import signal
import socket
import subprocess
from pathlib import Path

# Before torch is imported: two workers of one thread each, which sleep while they wait, are faster
# on two cores than two of two threads, and much faster beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from command import stop_server
from safetensors.torch import load_file, save_file

from atom_repro.adb.connection import Connection
from atom_repro.adb.standin import StandIn
from atom_repro.checkpoints.module_files import save_decoder, save_encoder
from atom_repro.data.toy import dataset as toy
from atom_repro.models.mplug2plus import MPlug2Plus, build
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import SpecialTokens
from atom_repro.quant import none

# Files that run whole stages, the longest first: two workers that begin with them end together.
LONGEST = (
    "test_readme", "test_readme_alone", "test_finetune", "test_study", "test_reproduce",
    "test_sweep", "test_golden",
)  # fmt: skip
TEXTS = ["a red ball bounces on the beach", "two boats drift left at night"]


def pytest_configure() -> None:
    # Where Ctrl-C is ignored (nohup, some CI), tests that send themselves one would wait for good.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    stop_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def small_model(**changes: dict[str, object]) -> MPlug2Plus:
    encoder = {
        "frames": 3, "image_size": 32, "patch_size": 8, "stem": "patch", "width": 32, "layers": 2,
        "heads": 4, "mlp_width": 64, "temporal_width": 16, "grid": 2,
    }  # fmt: skip
    decoder = {
        "vocabulary": 300, "width": 48, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 12,
        "mlp_width": 96, "rope_theta": 10000.0, "max_positions": 128,
    }  # fmt: skip
    return build(
        name="small",
        form="folded",
        prompt="",
        chat=False,
        encoder=encoder | changes.get("encoder", {}),
        decoder=decoder | changes.get("decoder", {}),
    )


@pytest.fixture
def model() -> MPlug2Plus:
    return small_model()


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, 300, SpecialTokens())


@pytest.fixture
def saved(tmp_path, model, tokenizer):
    """A checkpoint folder with random fp32 modules, temporal modules and logits made to matter."""
    torch.manual_seed(0)
    encoder, decoder = model.make_encoder(), model.make_decoder()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    label = "random"
    save_encoder(tmp_path / "ck/fp32/encoder", model, encoder, none.build(), label)
    save_decoder(tmp_path / "ck/fp32/decoder", model, decoder, tokenizer, none.build(), label)
    return tmp_path / "ck"


def spoil(folder: Path, number: float = math.nan) -> str:
    """Put a number that is not finite among the weights of a module; gives the weight's name."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = number
    save_file(tensors, path)
    return name


@pytest.fixture
def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 3, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="session")
def planned(tmp_path_factory) -> toy.ToyDataset:
    """Many clips whose files are blank: all that has no pixels is as in a real one."""
    patch = pytest.MonkeyPatch()

    def blank(path, *_: object, **__: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"blank")

    patch.setattr(toy, "write_video", blank)
    patch.setattr(toy, "render", lambda *_, **__: np.zeros((1, 2, 2, 3), np.uint8))
    dataset = toy.build(
        root=str(tmp_path_factory.mktemp("planned")),
        seed=3,
        train=1200,
        validation=100,
        test=200,
        held_out_share=0.12,
        long_videos=6,
        size=32,
        fps=3,
        clip_s=10.0,
    )
    dataset.prepare()
    patch.undo()
    return dataset


@pytest.fixture(scope="session")
def adb_port(tmp_path_factory):
    """The port of an adb server with keys of its own."""
    adbutils = pytest.importorskip("adbutils")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    subprocess.run([adbutils.adb_path(), "start-server"], check=True, capture_output=True)
    yield port
    subprocess.run([adbutils.adb_path(), "kill-server"], check=False)
    patch.undo()


@pytest.fixture
def device(tmp_path):
    """A stand-in device."""
    with StandIn(tmp_path / "device") as standin:
        yield standin


@pytest.fixture
def phone(device, adb_port):
    """The connection to it through a real adb server."""
    return Connection.open(device.address)
