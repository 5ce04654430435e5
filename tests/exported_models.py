"""Small models with random weights, exported once for all test files and workers."""

import shutil

import torch
from conftest import TEXTS, small_model
from filelock import FileLock

from atom_repro import config
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import save_decoder, save_encoder
from atom_repro.engines import executorch
from atom_repro.engines.embedder_export import export_embedder
from atom_repro.models import mplug2, smolvlm2
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.quant import none

FP32 = none.build()
ENCODER = {
    "frames": 2, "image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "heads": 4,
    "mlp_width": 64,
}  # fmt: skip
DECODER = {"vocabulary": 300, "width": 32, "layers": 1, "heads": 4, "mlp_width": 64}


def llama():
    decoder = DECODER | {"kv_heads": 2, "head_width": 8}
    return small_model(encoder=ENCODER, decoder=decoder)


def bert():
    encoder = ENCODER | {"stem": "conv", "temporal_width": 16, "grid": 2}
    encoder |= {"connector": "universal", "latents": 3}
    return mplug2.build(
        name="bert",
        form="folded",
        prompt="",
        released_text=False,
        encoder=encoder,
        decoder=DECODER | {"max_positions": 24},
    )


def smol():
    decoder = DECODER | {"kv_heads": 2, "head_width": 8, "rope_theta": 1e4, "max_positions": 64}
    return smolvlm2.build(name="smol", prompt="", encoder=ENCODER | {"shuffle": 2}, decoder=decoder)


def in_this_process():
    return executorch.build(processes=False, huge_pages=False)


def checkpoint_of(model, folder):
    torch.manual_seed(0)
    encoder, decoder = model.make_encoder(), model.make_decoder()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    tokenizer = Tokenizer.train(TEXTS * 3, 300, model.specials)
    save_encoder(folder / "fp32/encoder", model, encoder, FP32, "random")
    save_decoder(folder / "fp32/decoder", model, decoder, tokenizer, FP32, "random")
    return Checkpoint(folder)


def of_the_run(tmp_path_factory):
    """The temporary folder that all workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


def exported_checkpoint(model, quantiser, tmp_path_factory):
    """A copy of a checkpoint with exported modules. An export takes a minute, so it is made once a
    run, by whichever worker comes first."""
    own = tmp_path_factory.mktemp(model.name)
    made = of_the_run(tmp_path_factory) / f"exported-{model.name}-{quantiser.recipe}"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            building = made.with_name(f"{made.name}.building")
            checkpoint = checkpoint_of(model, building)
            checkpoint.prepare(quantiser, model)
            in_this_process().prepare(checkpoint, quantiser, model, "embedded")
            building.rename(made)
    return Checkpoint(shutil.copytree(made, own / "ck"))


def with_embedder(checkpoint, tmp_path_factory):
    """The checkpoint with the exported text embedder, which is exported once a run too."""
    made = of_the_run(tmp_path_factory) / "exported-embedder"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            building = made.with_name(f"{made.name}.building")
            export_embedder(building, "embedded")
            building.rename(made)
    shutil.copytree(made, checkpoint.folder / "embedder")
    return checkpoint


def as_overrides(model):
    """Overrides of model=tiny_mplug2plus that make it this model."""
    tiny = config.to_dict(config.compose("latency", []))["model"]
    parts = {"encoder": model.encoder.to_dict(), "decoder": model.decoder.to_dict()}
    numbers = [
        f"model.{part}.{key}={value}"
        for part, numbers in parts.items()
        for key, value in numbers.items()
        if key in tiny[part]  # others follow from these
    ]
    return [f"model.name={model.name}", *numbers]
