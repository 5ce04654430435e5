"""Run by test_elsewhere: every family on a device that is not the host's, without having one.

Tensors have shapes and a device, and no contents. torch refuses an operation whose tensors lie on
two devices there as it does on a GPU, so a network that makes a constant on the host by mistake
fails. What a CPU build of torch cannot do for another device (copying to it) is done here.
"""

import sys

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from atom_repro import config
from atom_repro.config.composition import compose
from atom_repro.engines.modules import EncoderModule
from atom_repro.engines.roofline import ShapeOnlyDispatch
from atom_repro.training.network import training_network
from atom_repro.training.processes import on_device
from atom_repro.training.step_trial import SyntheticCaptions

ELSEWHERE = "elsewhere"


class Copies(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to:
            return moved(*args, **kwargs)
        if func is torch.tensor and kwargs.get("device") is not None:
            there = kwargs.pop("device")
            made = func(*args, **kwargs)
            return torch.empty(made.shape, dtype=made.dtype, device=there)
        return func(*args, **kwargs)


def moved(tensor, *given, **named):
    device, dtype = tensor.device, tensor.dtype
    for value in (*given, *named.values()):
        if isinstance(value, torch.Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, torch.device | str):
            device = torch.device(value)
        elif isinstance(value, torch.dtype):
            dtype = value
    return torch.empty(tensor.shape, dtype=dtype, device=device)


def move(network):
    """Module.to, which cannot exchange tensors without contents."""
    copies = {}
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                copy = torch.nn.Parameter(moved(weight, ELSEWHERE), requires_grad=False)
                module._parameters[name] = copies.setdefault(id(weight), copy)
        for name, constant in module._buffers.items():
            if constant is not None:
                module._buffers[name] = moved(constant, ELSEWHERE)
    return network


def tells_devices_apart():
    try:
        torch.zeros(2, device=ELSEWHERE) + torch.zeros(2)
    except RuntimeError:
        return True
    return False


def main(name):
    cfg = compose("training_step", [f"model={name}"])
    model = config.build(cfg.model)
    words = SyntheticCaptions.of(model, length=5, seed=0)
    numbers, tokenizer = model.encoder, words.tokenizer
    with FakeTensorMode(), ShapeOnlyDispatch(), torch.no_grad(), Copies():
        assert tells_devices_apart()
        encoder, decoder = move(model.make_encoder().eval()), move(model.make_decoder().eval())
        size = (2, numbers.frames, 3, numbers.image_size, numbers.image_size)
        seeing = EncoderModule(encoder, "random", device=torch.device(ELSEWHERE))
        visual = seeing(torch.empty(size, dtype=torch.uint8))  # frames come from the host
        ids = model.prompt_ids(tokenizer, model.prompt, visual=visual)
        logits, cache = decoder.start(visual, ids)
        cache.open(4, 5)
        cache.reorder(torch.zeros(2, 4, dtype=torch.long, device=ELSEWHERE))
        cache.keep(torch.tensor([1]))
        step = decoder.step(torch.zeros(1, 4, dtype=torch.long, device=ELSEWHERE), cache)
        network = move(training_network(model, words, cfg.train).train())
        part = words.micro_batch(clips=2, captions_per_clip=2)
        loss, _ = network(on_device(part, torch.device(ELSEWHERE)))
    sys.stdout.write(" ".join(t.device.type for t in (visual.tokens, logits, step, loss)) + "\n")


if __name__ == "__main__":
    _setup_privateuseone_for_python_backend(ELSEWHERE)
    for family in sys.argv[1:]:
        main(family)
