"""Components of a model that are trained in full, frozen, or adapted (LoRA).

A family defines its components by parameter patterns; every parameter belongs to exactly one.
"""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from atom_repro.datatypes import AtomError
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.training.lora import adapt


def is_visual(model: VideoLanguageModel) -> Callable[[str], bool]:
    """Predicate of a parameter name of `CaptioningModel`: part of the visual encoder, with temporal
    modules, without the connector."""
    patterns = [
        pattern
        for name, component_patterns in model.components.items()
        if name.startswith("visual.") and name != "visual.connector"
        for pattern in component_patterns
    ]
    return lambda parameter: any(fnmatchcase(parameter, p) for p in patterns)


def component_of(model: VideoLanguageModel, parameters: Iterable[str]) -> dict[str, str]:
    """Map each parameter of the encoder and the decoder to its component.

    Raises:
        AtomError: a parameter of no or several components, or a component without parameters:
            the family's `components` do not fit its modules.
    """
    owner_of: dict[str, str] = {}
    for parameter in parameters:
        owners = [
            name
            for name, patterns in model.components.items()
            if any(fnmatchcase(parameter, p) for p in patterns)
        ]
        if len(owners) != 1:
            owner_names = " and ".join(owners) or "no component"
            raise AtomError(f"parameter {parameter} of model={model.name} belongs to {owner_names}")
        owner_of[parameter] = owners[0]
    unmatched = model.components.keys() - set(owner_of.values())
    if unmatched:
        raise AtomError(f"component {min(unmatched)} of model={model.name} matches no parameter")
    return owner_of


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
        network: has the modules `encoder` and `decoder`.
        choices: component to `full`, `frozen` or `lora`.

    Raises:
        AtomError: an unknown component or choice, a LoRA component without linear layers, or
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
            # A tied weight is not adapted: once merged, it would no longer be tied.
            tied = [p for side in ("encoder", "decoder") for p in _tied(network, side)]
            linear_names = [
                p.removesuffix(".weight") for p, owner in owners.items() if owner == name
            ]
            if not adapt(
                network,
                [m for m in linear_names if _is_untied_linear(network, m, tied)],
                rank=rank,
                alpha=alpha,
            ):
                raise AtomError(f"train.components.{name}=lora: the component has no linear map")
    if not any(p.requires_grad for p in network.parameters()):
        raise AtomError("train.components leaves nothing to train; set one to full or lora")


def _tied(network: nn.Module, side: str) -> list[str]:
    tied: Mapping[str, str] = network.get_submodule(side).tied  # type: ignore[assignment]
    return [f"{side}.{name}" for pair in tied.items() for name in pair]


def _is_untied_linear(network: nn.Module, name: str, tied: Iterable[str]) -> bool:
    modules = dict(network.named_modules())
    return type(modules.get(name)) is nn.Linear and f"{name}.weight" not in tied
