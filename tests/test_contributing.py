"""The walk through the code in CONTRIBUTING.md names files and names that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALK = TEXT[TEXT.index("## One clip and one record") : TEXT.index("## Recipes")]
FILES = re.findall(r"`([\w/]+\.py)`((?:,? `[A-Za-z_.]+`)*)(?=[,; |]|$)", WALK, re.MULTILINE)


def names(tree):
    """Functions and classes at the top of a file, and `Class.method`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{n.name}" for n in node.body if hasattr(n, "name"))


def test_every_file_of_the_walk_is_met():
    assert len(FILES) == len(re.findall(r"\.py`", WALK)) >= 25


@pytest.mark.parametrize(("file", "named"), FILES)
def test_the_names_exist(file, named):
    defined = set(names(ast.parse((ROOT / "atom_repro" / file).read_text(encoding="utf-8"))))
    wanted = set(re.findall(r"`([A-Za-z_.]+)`", named))
    assert wanted <= defined, f"{file} defines no {wanted - defined}"


def test_every_path_in_the_text_exists():
    folders = "atom_repro|conf|tests|results|train|eval|device_bench"
    paths = re.findall(rf"`((?:{folders})/[\w./]+)`", TEXT)
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).exists(), path
