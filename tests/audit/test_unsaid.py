"""What the paper does not say: every entry's key exists and has the value that is called ours."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from atom_repro.audit.page import pages
from atom_repro.audit.unsaid import Unsaid, load_unsaid
from atom_repro.config.composition import compose
from atom_repro.datatypes import AtomError

ROOT = Path(__file__).parents[2]
FILE = ROOT / "results/paper/unsaid.toml"
ENTRIES = load_unsaid(FILE)
ENTRY = (
    '[[unsaid]]\nid = "x"\nwhere = "5.1"\nwhat = "w"\nchoice = "c"\ncommand = "eval.caption"\n'
    'key = "seed"\nvalue = 0\n'
)


@functools.cache
def composed(primary: str, *overrides: str) -> DictConfig:
    return compose(primary, overrides)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.id for entry in ENTRIES])
def test_the_key_of_the_command_has_our_choice(entry: Unsaid) -> None:
    assert (ROOT / f"{entry.command.replace('.', '/')}.py").is_file()
    cfg = composed(entry.command.rpartition(".")[2], *entry.overrides)
    value = OmegaConf.select(cfg, entry.key, throw_on_missing=True)
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    assert plain == entry.value
    assert type(plain) is type(entry.value)


def test_gaps_that_every_reproduction_meets_are_listed() -> None:
    ids = {entry.id for entry in ENTRIES}
    assert {
        "gallery", "queries", "ablation-data", "prompts", "study-videos", "participants",
        "android", "seeds",
    } <= ids  # fmt: skip


def test_the_page_lists_every_entry() -> None:
    markdown = pages([], ENTRIES)["audit.md"]
    for entry in ENTRIES:
        row = next(line for line in markdown.splitlines() if entry.setting in line)
        assert entry.invocation in row
        assert entry.where in row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t + "colour = 1\n", "x: unknown key colour"),
        (lambda t: t.replace('key = "seed"\n', ""), "x: missing key key"),
        (lambda t: t + t, "two entries have the id x"),
        (lambda t: t + "=", "unsaid.toml: "),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "unsaid.toml"
    path.write_text(ENTRY, encoding="utf-8")
    assert [entry.setting for entry in load_unsaid(path)] == ["seed=0"]
    path.write_text(change(ENTRY), encoding="utf-8")
    with pytest.raises(AtomError, match=message):
        load_unsaid(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AtomError, match=r"unsaid\.toml is missing"):
        load_unsaid(tmp_path / "unsaid.toml")
