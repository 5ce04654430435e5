"""Parts of a model that training treats as one, by the patterns that its family names them with."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from atom_repro.datatypes import AtomError
from atom_repro.models.vlm import VideoLanguageModel


def in_component(model: VideoLanguageModel, *names: str) -> Callable[[str], bool]:
    """Whether a parameter of `CaptioningModel` belongs to one of the named components."""
    patterns = [p for name in names for p in model.components.get(name, ())]
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
