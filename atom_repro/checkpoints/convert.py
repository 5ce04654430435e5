"""Released checkpoints as a checkpoint folder of ours, and such a folder as the start of training.

The modules are built without memory to learn what they need; every key of a source is placed,
ignored by a rule, or an error, and all shapes are checked, before anything is read. Then tensors
go from file to file one at a time, so that a conversion needs little more than its largest tensor;
where a module has weights that no source holds, it is built once more with memory for those.

Precision: our files are fp32. bf16, fp16 and fp32 sources are widened, which is exact; any other
type is an error.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from atom_repro.checkpoints import module_files
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.released import Ignored, Placed, Role, Source, all_sources
from atom_repro.checkpoints.released.source import MODULES, Module
from atom_repro.checkpoints.weight_files import WeightFile, open_weights
from atom_repro.datatypes import AtomError
from atom_repro.device.capacity import require_disk, require_memory
from atom_repro.models.tokenizer import FILE, Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.records.atomic import atomically

REPORT = "conversion.json"
KINDS: Mapping[Module, str] = {"encoder": "video_encoder", "decoder": "text_decoder"}
_WANTED = ["*.safetensors", "*.safetensors.index.json", "config.json", FILE]
_WIDENED = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Opened:
    """A source that was found at `place`, with its file open."""

    source: Source
    given: str
    place: Path
    file: WeightFile


@dataclass
class ModulePlan:
    """Where each of a module's weights comes from.

    `shapes` are those of the module's file, `parts` the keys that make a weight, `same` the keys
    of a tied weight's second copy, which must be equal to the first; `new` and `ignored` map keys
    to the reason or the rule.
    """

    shapes: dict[str, tuple[int, ...]]
    tied: dict[str, str]
    parts: dict[str, dict[int, tuple[str, Placed]]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    opened: Opened | None = None

    @property
    def bytes(self) -> int:
        return sum(4 * torch.Size(s).numel() for s in self.shapes.values())


@dataclass(frozen=True)
class Conversion:
    """What became of every key; `conversion.json` holds it whole."""

    folder: Path
    weights: str
    modules: Mapping[str, Mapping[str, Any]]
    ignored: Mapping[str, Mapping[str, str]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": 1,
            "weights": self.weights,
            "modules": {k: dict(v) for k, v in self.modules.items()},
            "ignored": {k: dict(v) for k, v in self.ignored.items()},
        }

    def summary(self) -> str:
        """A line a module, one a rule, and where the checkpoint is."""
        lines = []
        for name, told in self.modules.items():
            lines.append(
                f"{name}: {len(told['loaded'])} weights from {told['source']}, "
                f"{len(told['new'])} new"
            )
            for reason, count in Counter(told["new"].values()).items():
                lines.append(f"  new: {count} ({reason})")
        for source, keys in self.ignored.items():
            for rule, count in Counter(keys.values()).items():
                lines.append(f"  ignored in {source}: {count} ({rule})")
        return "\n".join([*lines, f"{self.weights} in {self.folder}"])


def convert(
    model: VideoLanguageModel,
    sources: Mapping[str, str],
    target: Path | None,
    *,
    tokenizer: str = "",
    seed: int = 0,
    force: bool = False,
) -> Conversion:
    """Write the fp32 modules of `model` from released weights.

    Args:
        sources: role (`whole`, or `video` and `text`) to a folder, a file or a hub id.
        target: the checkpoint folder; it appears whole or not at all.
        tokenizer: a folder with tokenizer.json; empty means beside the decoder's weights.
        seed: of the weights that no source has; they are those that training would start with.
        force: replace a checkpoint that is there.

    Raises:
        AtomError: a source that is missing, broken or not known; a key that is not known, missing
            or of another shape; too little memory or disk; a target that exists.
    """
    if target is None:
        raise AtomError("target is empty; name the checkpoint folder to write")
    if target.exists() and not force:
        raise AtomError(f"{target} exists; choose another target, or force=true to replace it")
    _check_roles(sources)
    opened = [_open(cast(Role, role), given) for role, given in sources.items()]
    plans = {name: _empty_plan(model, name) for name in KINDS}
    ignored = {o.source.name: _lay_out(o, plans, model) for o in opened}
    words = _tokenizer(model, tokenizer, plans["decoder"])
    _check_room(plans, opened, target)
    with atomically(target) as building:
        checkpoint = Checkpoint(building)
        digest, folders = hashlib.sha256(), {}
        for name, plan in plans.items():
            folders[name] = getattr(checkpoint, name)("fp32")
            tensors = _tensors(model, name, plan, seed)
            digest.update(module_files.stream_weights(folders[name], plan.shapes, tensors).encode())
        kind = "mixed" if any(plan.new for plan in plans.values()) else "released"
        weights = f"{kind}:{digest.hexdigest()[:16]}"
        for name in plans:
            module_files.describe_module(folders[name], model, KINDS[name], weights)
        words.save(folders["decoder"])
        report = Conversion(target, weights, {n: _told(p) for n, p in plans.items()}, ignored)
        text = json.dumps(report.to_dict(), indent=1)
        (building / REPORT).write_text(text + "\n", encoding="utf-8")
    return report


def _check_roles(sources: Mapping[str, str]) -> None:
    given = set(sources)
    if given in ({"whole"}, {"video", "text"}):
        return
    has = ", ".join(f"sources.{role}" for role in sorted(given)) or "no source"
    raise AtomError(
        f"{has} given; give sources.whole alone, or both sources.video and sources.text"
    )


def _open(role: Role, given: str) -> Opened:
    place = _fetch(role, given)
    file = open_weights(place)
    known = [s for s in all_sources() if s.role == role]
    for source in known:
        if any(re.fullmatch(source.signature, key) for key in file.entries):
            return Opened(source, given, place, file)
    names = ", ".join(s.name for s in known)
    raise AtomError(f"sources.{role}={given} holds weights of no known kind ({names})")


def _fetch(role: Role, given: str) -> Path:
    """The folder or file that was named, downloaded first if it is a hub id."""
    if Path(given).exists():
        return Path(given)
    known = "; ".join(f"{s.name}: {s.how}" for s in all_sources() if s.role == role)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", given) or given.endswith((".pth", ".safetensors")):
        raise AtomError(f"sources.{role}={given} does not exist; weights are at {known}")
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        return Path(huggingface_hub.snapshot_download(given, allow_patterns=_WANTED))
    except GatedRepoError as error:
        raise AtomError(
            f"sources.{role}={given} is gated: accept its licence at huggingface.co/{given} and "
            f"run `hf auth login`, or set sources.{role} to a folder that holds it"
        ) from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise AtomError(
            f"sources.{role}={given} is not here and cannot be downloaded "
            f"({type(error).__name__}); set sources.{role} to a folder or file; {known}"
        ) from error
    except Exception as error:
        if "httpx" not in type(error).__module__:
            raise
        raise AtomError(
            f"sources.{role}={given} cannot be downloaded, there is no network; set "
            f"sources.{role} to a folder or file; {known}"
        ) from error


def _empty_plan(model: VideoLanguageModel, name: Module) -> ModulePlan:
    with torch.device("meta"):
        network: Any = model.make_encoder() if name == "encoder" else model.make_decoder()
    state = network.file_state()
    shapes = {k: tuple(t.shape) for k, t in state.items() if k not in network.tied}
    return ModulePlan(shapes, dict(network.tied))


def _lay_out(
    opened: Opened, plans: Mapping[Module, ModulePlan], model: VideoLanguageModel
) -> dict[str, str]:
    """Give every key of a source its place in `plans`; the ignored ones with their rules."""
    source, ignored, unknown = opened.source, dict[str, str](), list[str]()
    _check_numbers(opened, model)
    for key in opened.file.entries:
        placed = source.place(key)
        if isinstance(placed, Placed):
            placed = _settle(key, placed, plans[placed.module])
        if isinstance(placed, Ignored):
            ignored[key] = placed.rule
        elif placed is None:
            unknown.append(key)
    if unknown:
        raise AtomError(
            f"{opened.given} holds {len(unknown)} unexpected keys for model={model.name} as "
            f"{source.name}, such as {unknown[0]}; choose the matching model or checkpoint"
        )
    for name in MODULES[source.role]:
        plans[name].opened = opened
        _complete(opened, name, plans[name])
    return ignored


def _settle(key: str, placed: Placed, plan: ModulePlan) -> Placed | Ignored | None:
    """Note where a key goes, if the module has such a weight."""
    if placed.key in plan.shapes:
        plan.parts.setdefault(placed.key, {})[placed.part] = (key, placed)
        return placed
    if placed.key in plan.tied:
        plan.same[placed.key] = key
        return placed
    return Ignored(placed.spare) if placed.spare else None


def _complete(opened: Opened, name: Module, plan: ModulePlan) -> None:
    """Check that every weight has all its parts and its shape, or may be new."""
    source = opened.source
    for key, shape in plan.shapes.items():
        parts = plan.parts.get(key)
        if parts is None:
            reasons = [why for rule, why in source.new.items() if re.fullmatch(rule, key)]
            if not reasons:
                raise AtomError(
                    f"{opened.given} lacks the {name}'s {key} ({source.name}); fetch it again or "
                    "choose the matching model"
                )
            plan.new[key] = reasons[0]
            continue
        ordered = _ordered(opened, key, parts)
        without_memory = []
        for theirs, placed in ordered:
            entry = opened.file.entries[theirs]
            if entry.dtype not in _WIDENED:
                raise AtomError(f"{opened.given}: {theirs} is {entry.dtype}, not fp32/bf16/fp16")
            empty = torch.empty(entry.shape, device="meta")
            without_memory.append(_transformed(placed, empty, opened, theirs))
        found = _joined_shape(without_memory)
        if found != shape:
            theirs = ordered[0][0]
            raise AtomError(
                f"{opened.given}: {theirs} makes {key} of shape {found}, the model's is {shape}; "
                "choose the matching model or checkpoint"
            )


def _ordered(
    opened: Opened, key: str, parts: Mapping[int, tuple[str, Placed]]
) -> list[tuple[str, Placed]]:
    theirs, first = next(iter(parts.values()))
    if len(parts) != first.parts:
        raise AtomError(
            f"{opened.given} has {len(parts)} of the {first.parts} keys that make {key}, among "
            f"them {theirs}; fetch it again"
        )
    return [parts[i] for i in range(first.parts)]


def _transformed(placed: Placed, tensor: Tensor, opened: Opened, key: str) -> Tensor:
    try:
        return placed.transform(tensor)
    except (RuntimeError, IndexError) as error:
        raise AtomError(
            f"{opened.given}: {key} has shape {tuple(tensor.shape)}, from which {placed.key} "
            "cannot be made; choose the matching model or checkpoint"
        ) from error


def _joined_shape(parts: list[Tensor]) -> tuple[int, ...]:
    first = tuple(parts[0].shape)
    if len(parts) == 1 or any(tuple(p.shape[1:]) != first[1:] for p in parts):
        return first
    return (sum(p.shape[0] for p in parts), *first[1:])


def _check_numbers(opened: Opened, model: VideoLanguageModel) -> None:
    """Compare what no shape shows with the `config.json` beside the weights, if there is one."""
    folder = opened.place if opened.place.is_dir() else opened.place.parent
    path = folder / "config.json"
    if not path.is_file():
        return
    try:
        theirs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtomError(f"{path} is not JSON ({error}); fetch it again") from error
    if opened.source.check is not None:
        opened.source.check(model, theirs)
    theirs = theirs.get("vision_config", theirs) if opened.source.role == "video" else theirs
    ours = {"encoder": model.encoder.to_dict(), "decoder": model.decoder.to_dict()}
    for number, name in opened.source.numbers.items():
        module, _, key = number.partition(".")
        if name in theirs and ours[module][key] != theirs[name]:
            raise AtomError(
                f"{path} says {name}={theirs[name]}, model.{number}={ours[module][key]}; choose "
                "the matching model or checkpoint"
            )


def _tokenizer(model: VideoLanguageModel, given: str, decoder: ModulePlan) -> Tokenizer:
    assert decoder.opened is not None
    place = Path(given) if given else decoder.opened.place
    folder = place if place.is_dir() else place.parent
    if not (folder / FILE).is_file():
        raise AtomError(
            f"{folder / FILE} is missing; set sources.tokenizer to a folder with the {FILE} that "
            f"belongs to {decoder.opened.source.name}"
        )
    try:
        words = Tokenizer.load(folder, model.specials)
    except AtomError:
        raise
    except Exception as error:
        raise AtomError(f"{folder / FILE} cannot be read ({error}); fetch it again") from error
    if words.size > model.decoder.vocabulary:
        raise AtomError(
            f"{folder / FILE} has {words.size} tokens, model.decoder.vocabulary="
            f"{model.decoder.vocabulary}; give the tokenizer that belongs to the model"
        )
    return words


def _check_room(plans: Mapping[Module, ModulePlan], opened: list[Opened], target: Path) -> None:
    largest = max(4 * torch.Size(s).numel() for p in plans.values() for s in p.shapes.values())
    # A tensor as read, widened and joined; and once the whole of a module that is partly new.
    initial = max((plan.bytes for plan in plans.values() if plan.new), default=0)
    what = f"converting {' and '.join(o.given for o in opened)}"
    require_memory(3 * largest + initial, what)
    require_disk(target, sum(plan.bytes for plan in plans.values()) + 2**20, what)


def _tensors(
    model: VideoLanguageModel, name: Module, plan: ModulePlan, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """The module's weights in the order of its file, each made when it is asked for."""
    assert plan.opened is not None
    opened = plan.opened
    initial = _initial(model, name, plan, seed) if plan.new else {}
    for alias, theirs in plan.same.items():
        _check_same(opened, plan, alias, theirs)
    for key in plan.shapes:
        if key in plan.new:
            yield key, initial.pop(key)
            continue
        parts = [
            placed.transform(opened.file.read(theirs)).to(torch.float32)
            for theirs, placed in _ordered(opened, key, plan.parts[key])
        ]
        yield key, parts[0] if len(parts) == 1 else torch.cat(parts)


def _check_same(opened: Opened, plan: ModulePlan, alias: str, theirs: str) -> None:
    first, _ = plan.parts[plan.tied[alias]][0]
    if opened.file.entries[first].shape == opened.file.entries[theirs].shape and torch.equal(
        opened.file.read(first), opened.file.read(theirs)
    ):
        return
    raise AtomError(
        f"{opened.given}: {theirs} differs from {first}, and the model has one weight for both; "
        "set model.decoder.tied=false or choose the matching checkpoint"
    )


def _initial(
    model: VideoLanguageModel, name: Module, plan: ModulePlan, seed: int
) -> dict[str, Tensor]:
    """The new weights as training draws them: after the seed the encoder, then the decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = model.make_encoder()
        if name == "decoder":
            network = model.make_decoder()
    state = network.file_state()
    return {key: state[key].detach().clone() for key in plan.new}


def _told(plan: ModulePlan) -> dict[str, Any]:
    assert plan.opened is not None
    loaded = {
        key: [theirs for theirs, _ in (parts[i] for i in sorted(parts))]
        for key, parts in plan.parts.items()
    }
    same = {alias: [theirs] for alias, theirs in plan.same.items()}
    return {
        "source": plan.opened.source.name,
        "given": plan.opened.given,
        "loaded": loaded,
        "tied": same,
        "new": plan.new,
    }
