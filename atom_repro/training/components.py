"""Parts of a model that training treats as one: trained in full, frozen, or adapted (LoRA).

A family names its parts by patterns of parameters; every parameter belongs to exactly one.
"""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from atom_repro.datatypes import AtomError
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.training.lora import adapt


def is_visual(model: VideoLanguageModel) -> Callable[[str], bool]:
    """Whether a parameter of `CaptioningModel` is of the visual encoder, temporal modules
    included; what connects it to the decoder is not."""
    patterns = [
        pattern
        for name, some in model.components.items()
        if name.startswith("visual.") and name != "visual.connector"
        for pattern in some
    ]
    return lambda parameter: any(fnmatchcase(parameter, p) for p in patterns)


def component_of(model: VideoLanguageModel, parameters: Iterable[str]) -> dict[str, str]:
    """The component of each parameter of the encoder and the decoder.

    Raises:
        AtomError: a parameter of none or of several, or a component without a parameter: the
            family's `components` do not fit its modules.
    """
    found: dict[str, str] = {}
    for parameter in parameters:
        owners = [
            name
            for name, patterns in model.components.items()
            if any(fnmatchcase(parameter, p) for p in patterns)
        ]
        if len(owners) != 1:
            said = " and ".join(owners) or "no component"
            raise AtomError(f"parameter {parameter} of model={model.name} belongs to {said}")
        found[parameter] = owners[0]
    idle = model.components.keys() - set(found.values())
    if idle:
        raise AtomError(f"component {min(idle)} of model={model.name} matches no parameter")
    return found


def choose_trained(
    network: nn.Module,
    model: VideoLanguageModel,
    choices: Mapping[str, str],
    *,
    rank: int,
    alpha: float,
) -> None:
    """Freeze or adapt the components that `choices` names; the others are trained in full.

    Args:
        network: with the modules `encoder` and `decoder`.
        choices: component to `full`, `frozen` or `lora`.

    Raises:
        AtomError: an unknown component or choice, a component to adapt that has no linear map, or
            nothing left to train.
    """
    for name, choice in choices.items():
        if name not in model.components:
            raise AtomError(
                f"train.components.{name} is no component of model={model.name}; it has "
                f"{', '.join(model.components)}"
            )
        if choice not in ("full", "frozen", "lora"):
            raise AtomError(f"train.components.{name}={choice!r} is none of full, frozen, lora")
    parameters = dict(network.named_parameters())
    owners = component_of(model, (p for p in parameters if p.startswith(("encoder.", "decoder."))))
    for parameter, owner in owners.items():
        parameters[parameter].requires_grad_(choices.get(owner, "full") == "full")
    for name, choice in choices.items():
        if choice == "lora":
            # A tied weight is not adapted: merged, it would be tied no more.
            tied = [p for side in ("encoder", "decoder") for p in _tied(network, side)]
            maps = [p.removesuffix(".weight") for p, owner in owners.items() if owner == name]
            if not adapt(
                network, [m for m in maps if _is_map(network, m, tied)], rank=rank, alpha=alpha
            ):
                raise AtomError(f"train.components.{name}=lora: the component has no linear map")
    if not any(p.requires_grad for p in network.parameters()):
        raise AtomError("train.components leaves nothing to train; set one to full or lora")


def _tied(network: nn.Module, side: str) -> list[str]:
    tied: Mapping[str, str] = network.get_submodule(side).tied  # type: ignore[assignment]
    return [f"{side}.{name}" for pair in tied.items() for name in pair]


def _is_map(network: nn.Module, name: str, tied: Iterable[str]) -> bool:
    modules = dict(network.named_modules())
    return type(modules.get(name)) is nn.Linear and f"{name}.weight" not in tied
