"""Conversion of released checkpoints (CLIP, Llama, mPLUG2, SmolVLM2) into a checkpoint folder.

The modules are built on the meta device to list their weights; every key of a source is mapped,
ignored by a rule, or an error, and all shapes are checked, before any tensor is read. Then tensors
are copied from file to file one at a time, so the peak memory is little more than the largest
tensor; a module with weights that no source holds is built once more in memory for those.

Precision: the written files are fp32. bf16, fp16 and fp32 sources are widened, which is exact; any
other type is an error.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from atom_repro.checkpoints import module_files
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.released import IgnoredKey, MappedKey, Role, Source, all_sources
from atom_repro.checkpoints.released.source import MODULES, Module
from atom_repro.checkpoints.weight_files import WeightFile, finite, open_weights
from atom_repro.datatypes import AtomError
from atom_repro.device.capacity import require_disk, require_memory
from atom_repro.models.tokenizer import TOKENIZER_FILE, Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.records.atomic import atomic_write

REPORT = "conversion.json"
KINDS: Mapping[Module, str] = {
    "encoder": module_files.ENCODER,
    "decoder": module_files.DECODER,
}
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "config.json", TOKENIZER_FILE]
_FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class OpenedSource:
    """A recognised source: `location` as the user gave it, `path` on disk, and its open file."""

    source: Source
    location: str
    path: Path
    file: WeightFile


@dataclass
class ModulePlan:
    """Mapping from each weight of a module to the source keys that fill it.

    `shapes` are those of the module's file, `parts` the source keys that are joined to a weight,
    `tied_copies` the source keys of a tied weight's second copy, which must equal the first;
    `new` maps weights that no source holds to the reason.
    """

    shapes: dict[str, tuple[int, ...]]
    tied: dict[str, str]
    parts: dict[str, dict[int, tuple[str, MappedKey]]] = field(default_factory=dict)
    tied_copies: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    opened: OpenedSource | None = None

    @property
    def bytes(self) -> int:
        return sum(4 * torch.Size(s).numel() for s in self.shapes.values())


@dataclass(frozen=True)
class ConversionReport:
    """Report of a conversion: which keys were loaded, tied, new or ignored (`conversion.json`)."""

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
        """Text summary: a line for each module and each rule, and the checkpoint folder."""
        lines = []
        for name, report in self.modules.items():
            lines.append(
                f"{name}: {len(report['loaded'])} weights from {report['source']}, "
                f"{len(report['new'])} new"
            )
            for reason, count in Counter(report["new"].values()).items():
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
) -> ConversionReport:
    """Write the fp32 modules of `model` from released weights.

    Args:
        sources: role (`whole`, or `video` and `text`) to a folder, a file or a hub id.
        target: the checkpoint folder, written atomically.
        tokenizer: a folder with tokenizer.json; empty for the folder of the decoder's weights.
        seed: for weights that no source holds; they are initialised as training would.
        force: replace an existing checkpoint.

    Raises:
        AtomError: a source that is missing, broken or unknown; a key that is unknown, missing or
            of another shape; a weight that is not finite; too little memory or disk; a target that
            exists.
    """
    if target is None:
        raise AtomError("target is empty; name the checkpoint folder to write")
    if target.exists() and not force:
        raise AtomError(f"{target} exists; choose another target, or force=true to replace it")
    _check_roles(model, sources)
    opened = [_open_source(model, cast(Role, r), location) for r, location in sources.items()]
    plans = {name: _empty_plan(model, name) for name in KINDS}
    ignored = {o.source.name: _map_keys(o, plans, model) for o in opened}
    decoder_tokenizer = _load_tokenizer(model, tokenizer, plans["decoder"])
    _check_capacity(plans, opened, target)
    with atomic_write(target) as building:
        checkpoint = Checkpoint(building)
        digest, folders = hashlib.sha256(), {}
        for name, plan in plans.items():
            folders[name] = getattr(checkpoint, name)()
            tensors = _converted_tensors(model, name, plan, seed)
            digest.update(module_files.stream_weights(folders[name], plan.shapes, tensors).encode())
        kind = "mixed" if any(plan.new for plan in plans.values()) else "released"
        weights = f"{kind}:{digest.hexdigest()[:16]}"
        for name in plans:
            module_files.write_module_config(folders[name], model, KINDS[name], weights)
        decoder_tokenizer.save(folders["decoder"])
        report = ConversionReport(
            target, weights, {n: _module_report(p) for n, p in plans.items()}, ignored
        )
        text = json.dumps(report.to_dict(), indent=1)
        (building / REPORT).write_text(text + "\n", encoding="utf-8")
    return report


def _sources_of(model: VideoLanguageModel) -> list[Source]:
    return [source for source in all_sources() if isinstance(model, source.model)]


def _check_roles(model: VideoLanguageModel, sources: Mapping[str, str]) -> None:
    known = _sources_of(model)
    roles = list(dict.fromkeys(source.role for source in known))
    if roles and set(sources) == set(roles):
        return
    provided = " and ".join(f"sources.{role}" for role in sources) or "no source"
    needed = " and ".join(f"sources.{role}" for role in roles) or "no released weights"
    where = "; ".join(f"{source.name}: {source.download_from}" for source in known)
    raise AtomError(f"{provided} given; model={model.name} takes {needed}. Weights are at {where}")


def _open_source(model: VideoLanguageModel, role: Role, location: str) -> OpenedSource:
    candidates = [source for source in _sources_of(model) if source.role == role]
    path = _fetch(role, location, candidates)
    file = open_weights(path)
    for source in candidates:
        if any(re.fullmatch(source.signature, key) for key in file.entries):
            return OpenedSource(source, location, path, file)
    names = " or ".join(s.name for s in candidates)
    raise AtomError(
        f"sources.{role}={location} holds no weights of {names}, which model={model.name} takes; "
        "choose the matching model or checkpoint"
    )


def _fetch(role: Role, location: str, candidates: Sequence[Source]) -> Path:
    """Local path of a source; a hub id is downloaded first."""
    if Path(location).exists():
        return Path(location)
    sources = "; ".join(f"{source.name}: {source.download_from}" for source in candidates)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", location) or location.endswith(
        (".pth", ".safetensors")
    ):
        raise AtomError(f"sources.{role}={location} does not exist; weights are at {sources}")
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        return Path(huggingface_hub.snapshot_download(location, allow_patterns=_HUB_FILES))
    except GatedRepoError as error:
        raise AtomError(
            f"sources.{role}={location} is gated: accept its licence at huggingface.co/{location} "
            f"and run `hf auth login`, or set sources.{role} to a folder that holds it"
        ) from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise AtomError(
            f"sources.{role}={location} is not a local path and cannot be downloaded "
            f"({type(error).__name__}); set sources.{role} to a folder or file; {sources}"
        ) from error
    except Exception as error:
        if "httpx" not in type(error).__module__:
            raise
        raise AtomError(
            f"sources.{role}={location} cannot be downloaded, there is no network; set "
            f"sources.{role} to a folder or file; {sources}"
        ) from error


def _empty_plan(model: VideoLanguageModel, name: Module) -> ModulePlan:
    network = module_files.empty_network(model, KINDS[name])
    return ModulePlan(module_files.weight_shapes(network), dict(network.tied))


def _map_keys(
    opened: OpenedSource, plans: Mapping[Module, ModulePlan], model: VideoLanguageModel
) -> dict[str, str]:
    """Assign every key of a source to a weight in `plans`; return the ignored keys and rules."""
    source, ignored, unknown = opened.source, dict[str, str](), list[str]()
    _check_config(opened, model)
    for key in opened.file.entries:
        mapped = source.map_key(key)
        if isinstance(mapped, MappedKey):
            mapped = _assign_key(key, mapped, plans[mapped.module])
        if isinstance(mapped, IgnoredKey):
            ignored[key] = mapped.rule
        elif mapped is None:
            unknown.append(key)
    if unknown:
        raise AtomError(
            f"{opened.location} holds {len(unknown)} unexpected keys for model={model.name} as "
            f"{source.name}, such as {unknown[0]}; choose the matching model or checkpoint"
        )
    for name in MODULES[source.role]:
        plans[name].opened = opened
        _check_complete(opened, name, plans[name])
    return ignored


def _assign_key(key: str, mapped: MappedKey, plan: ModulePlan) -> MappedKey | IgnoredKey | None:
    """Add a key to the plan if the module has the weight that it is mapped to."""
    if mapped.key in plan.shapes:
        plan.parts.setdefault(mapped.key, {})[mapped.part] = (key, mapped)
        return mapped
    if mapped.key in plan.tied:
        plan.tied_copies[mapped.key] = key
        return mapped
    return IgnoredKey(mapped.if_absent) if mapped.if_absent else None


def _check_complete(opened: OpenedSource, name: Module, plan: ModulePlan) -> None:
    """Check that every weight has all its parts and the right shape, or may be new."""
    source = opened.source
    for key, shape in plan.shapes.items():
        parts = plan.parts.get(key)
        if parts is None:
            reasons = [
                reason for pattern, reason in source.new.items() if re.fullmatch(pattern, key)
            ]
            if not reasons:
                raise AtomError(
                    f"{opened.location} lacks the {name}'s {key} ({source.name}); fetch it again "
                    "or choose the matching model"
                )
            plan.new[key] = reasons[0]
            continue
        ordered = _ordered_parts(opened, key, parts)
        meta_tensors = []
        for source_key, mapped in ordered:
            entry = opened.file.entries[source_key]
            if entry.dtype not in _FLOAT_DTYPES:
                raise AtomError(
                    f"{opened.location}: {source_key} is {entry.dtype}, not fp32/bf16/fp16"
                )
            empty = torch.empty(entry.shape, device="meta")
            meta_tensors.append(_transformed(mapped, empty, opened, source_key))
        joined = _joined_shape(meta_tensors)
        if joined != shape:
            source_key = ordered[0][0]
            raise AtomError(
                f"{opened.location}: {source_key} makes {key} of shape {joined}, the model's is "
                f"{shape}; choose the matching model or checkpoint"
            )


def _ordered_parts(
    opened: OpenedSource, key: str, parts: Mapping[int, tuple[str, MappedKey]]
) -> list[tuple[str, MappedKey]]:
    source_key, first = next(iter(parts.values()))
    if len(parts) != first.parts:
        raise AtomError(
            f"{opened.location} has {len(parts)} of the {first.parts} keys that make {key}, among "
            f"them {source_key}; fetch it again"
        )
    return [parts[i] for i in range(first.parts)]


def _transformed(mapped: MappedKey, tensor: Tensor, opened: OpenedSource, key: str) -> Tensor:
    try:
        return mapped.transform(tensor)
    except (RuntimeError, IndexError) as error:
        raise AtomError(
            f"{opened.location}: {key} has shape {tuple(tensor.shape)}, from which {mapped.key} "
            "cannot be made; choose the matching model or checkpoint"
        ) from error


def _joined_shape(parts: list[Tensor]) -> tuple[int, ...]:
    first = tuple(parts[0].shape)
    if len(parts) == 1 or any(tuple(p.shape[1:]) != first[1:] for p in parts):
        return first
    return (sum(p.shape[0] for p in parts), *first[1:])


def _check_config(opened: OpenedSource, model: VideoLanguageModel) -> None:
    """Compare numbers that shapes do not show with the `config.json` beside the weights, if any."""
    folder = opened.path if opened.path.is_dir() else opened.path.parent
    path = folder / "config.json"
    if not path.is_file():
        return
    try:
        released: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtomError(f"{path} is not JSON ({error}); fetch it again") from error
    if opened.source.check is not None:
        opened.source.check(model, released)
    released = (
        released.get("vision_config", released) if opened.source.role == "video" else released
    )
    expected = {"encoder": model.encoder.to_dict(), "decoder": model.decoder.to_dict()}
    for ours, config_key in opened.source.config_keys.items():
        module, _, key = ours.partition(".")
        if config_key in released and expected[module][key] != released[config_key]:
            raise AtomError(
                f"{path} says {config_key}={released[config_key]}, "
                f"model.{ours}={expected[module][key]}; choose the matching model or "
                "checkpoint"
            )


def _load_tokenizer(model: VideoLanguageModel, location: str, decoder: ModulePlan) -> Tokenizer:
    assert decoder.opened is not None
    path = Path(location) if location else decoder.opened.path
    folder = path if path.is_dir() else path.parent
    if not (folder / TOKENIZER_FILE).is_file():
        raise AtomError(
            f"{folder / TOKENIZER_FILE} is missing; set sources.tokenizer to a folder with the "
            f"{TOKENIZER_FILE} that belongs to {decoder.opened.source.name}"
        )
    try:
        tokenizer = Tokenizer.load(folder, model.specials)
    except AtomError:
        raise
    except Exception as error:
        raise AtomError(
            f"{folder / TOKENIZER_FILE} cannot be read ({error}); fetch it again"
        ) from error
    if tokenizer.size > model.decoder.vocabulary:
        raise AtomError(
            f"{folder / TOKENIZER_FILE} has {tokenizer.size} tokens, model.decoder.vocabulary="
            f"{model.decoder.vocabulary}; give the tokenizer that belongs to the model"
        )
    return tokenizer


def _check_capacity(
    plans: Mapping[Module, ModulePlan], opened: list[OpenedSource], target: Path
) -> None:
    largest = max(4 * torch.Size(s).numel() for p in plans.values() for s in p.shapes.values())
    # A tensor as read, as fp32 and joined; and once a whole module that is partly new.
    initial = max((plan.bytes for plan in plans.values() if plan.new), default=0)
    what = f"converting {' and '.join(o.location for o in opened)}"
    require_memory(3 * largest + initial, what, remedy="take a smaller model")
    require_disk(
        target,
        sum(plan.bytes for plan in plans.values()) + 2**20,
        what,
        remedy="choose another target",
    )


def _converted_tensors(
    model: VideoLanguageModel, name: Module, plan: ModulePlan, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Generate the module's fp32 weights in the order of its file."""
    assert plan.opened is not None
    opened = plan.opened
    initial = _initial_weights(model, name, plan, seed) if plan.new else {}
    for alias, source_key in plan.tied_copies.items():
        _check_tied_copy(model, opened, plan, alias, source_key)
    for key in plan.shapes:
        if key in plan.new:
            yield key, initial.pop(key)
            continue
        parts = [
            mapped.transform(finite(opened.file.read(source_key), opened.location, source_key)).to(
                torch.float32
            )
            for source_key, mapped in _ordered_parts(opened, key, plan.parts[key])
        ]
        yield key, parts[0] if len(parts) == 1 else torch.cat(parts)


def _check_tied_copy(
    model: VideoLanguageModel, opened: OpenedSource, plan: ModulePlan, alias: str, source_key: str
) -> None:
    first, _ = plan.parts[plan.tied[alias]][0]
    if opened.file.entries[first].shape == opened.file.entries[source_key].shape and torch.equal(
        opened.file.read(first), opened.file.read(source_key)
    ):
        return
    untie = "set model.decoder.tied=false or " if "tied" in model.decoder.to_dict() else ""
    raise AtomError(
        f"{opened.location}: {source_key} differs from {first}, and the model has one weight for "
        f"both; {untie}choose the matching checkpoint"
    )


def _initial_weights(
    model: VideoLanguageModel, name: Module, plan: ModulePlan, seed: int
) -> dict[str, Tensor]:
    """New weights, initialised as training does: seed, then encoder, then decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = model.make_encoder()
        if name == "decoder":
            network = model.make_decoder()
    state = network.checkpoint_state_dict()
    return {key: state[key].detach().clone() for key in plan.new}


def _module_report(plan: ModulePlan) -> dict[str, Any]:
    assert plan.opened is not None
    loaded = {
        key: [source_key for source_key, _ in (parts[i] for i in sorted(parts))]
        for key, parts in plan.parts.items()
    }
    tied_copies = {alias: [source_key] for alias, source_key in plan.tied_copies.items()}
    return {
        "source": plan.opened.source.name,
        "given": plan.opened.location,
        "loaded": loaded,
        "tied": tied_copies,
        "new": plan.new,
    }
