"""ARPA files of users: what a grammar is made of, and what is refused before kaldilm sees it."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
from hybrid.small_world import write_gmm, write_lang

from espnet_quant4.hybrid.graph.arpa import LanguageModelError, write_arpa
from espnet_quant4.hybrid.graph.arpa_reader import read_arpa
from espnet_quant4.hybrid.graph.grammar import arpa_to_fst
from espnet_quant4.hybrid.graph.ngram import estimate
from espnet_quant4.hybrid.openfst import from_kaldifst

GOOD = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-99\t<s>\t-0.3
-0.7\t</s>
-0.6\ta\t-0.2
-0.6\tb\t-0.2
-0.6\tbee

\\2-grams:
-0.3\t<s> a
-0.4\ta b
-0.5\tb </s>

\\end\\
"""


def changed(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


# What is wrong with a file, its content, the line that the error names (None: none), what it says.
WRONG = {
    "minus infinity": (changed("-0.6\tbee", "-inf\tbee"), 10, "log10 probability '-inf'"),
    "not a number": (changed("-0.6\tbee", "nan\tbee"), 10, "log10 probability 'nan'"),
    "positive": (changed("-0.4\ta b", "0.4\ta b"), 14, "log10 probability 0.4 of 'a b'"),
    "backoff not finite": (changed("-0.6\tb\t-0.2", "-0.6\tb\tinf"), 9, "backoff weight 'inf'"),
    "a comma": (changed("-0.7\t</s>", "-0,7\t</s>"), 7, "log10 probability '-0,7'"),
    "no beginning": (
        changed("-99\t<s>\t-0.3\n", "").replace("1=5", "1=4").replace("<s> a", "bee a"),
        None,
        "<s> is not among the 1-grams",
    ),
    "no end": (
        changed("-0.7\t</s>\n", "").replace("1=5", "1=4").replace("b </s>", "b a"),
        None,
        "</s> is not among the 1-grams",
    ),
    "epsilon": (changed("\tbee", "\t<eps>"), 10, "'<eps>' is reserved"),
    "backoff symbol": (changed("\tbee", "\t#0"), 10, "'#0' is reserved"),
    "backoff of the longest": (changed("a b\n", "a b\t-0.1\n"), 14, "backoff weight -0.1"),
    "too many": (changed("ngram 2=3", "ngram 2=2"), 17, "has 3 of them, but line 3 says 2"),
    "too few": (changed("ngram 1=5", "ngram 1=6"), 12, "has 5 of them, but line 2 says 6"),
    "cut off": (changed("\\end\\\n", ""), 16, "ends without a line \\end\\"),
    "a section more": (
        changed("\\end\\", "\\3-grams:\n-0.1\ta b a\n\n\\end\\"),
        17,
        "'\\\\3-grams:' where '\\\\end\\\\' is due",
    ),
    "a section less": (changed("ngram 2=3", "ngram 2=3\nngram 3=1"), 18, "'\\\\3-grams:' is due"),
    "orders mixed up": (
        changed("ngram 1=5\nngram 2=3", "ngram 2=3\nngram 1=5"),
        2,
        "1-grams is due",
    ),
    "a wrong section": (changed("\\2-grams:", "\\two-grams:"), 12, "is no section"),
    "a trigram among bigrams": (changed("a b\n", "a b a b\n"), 14, "5 fields in the section of 2"),
    "twice": (changed("-0.5\tb </s>", "-0.5\ta b"), 15, "'a b' stands for the second time"),
    "not among the unigrams": (changed("a b\n", "a bees\n"), 14, "'bees' of 'a bees' is not among"),
    "hard blank": (changed("a b\n", "a\u00a0b\n"), 14, "white space U+00A0"),
    "a broken head": (
        changed("ngram 2=3", "ngram 2=three"),
        3,
        "is no line of an ARPA file's head",
    ),
    "no ARPA file": ("a b c\n", None, "no line \\data\\"),
    "empty": ("", None, "no line \\data\\"),
    "Latin-1": (changed("\tbee", "\tb\u00e9e").encode("latin-1"), 10, "is not UTF-8"),
    "cut off gzip": (gzip.compress(GOOD.encode())[:-20], None, "damaged gzip file"),
}
ALL = """import sys
from espnet_quant4.bin import hybrid_graph
from espnet_quant4.bin.command import run_command
world, *files = sys.argv[1:]
for file in files:
    options = ["--lang", f"{world}/lang", "--gmm", f"{world}/mono", "--output", f"{file}.graph"]
    status = run_command("hybrid-graph", hybrid_graph.main, [*options, "--lm", file])
    print(f"exit status {status}", file=sys.stderr, flush=True)
"""


def as_bytes(content):
    return content if isinstance(content, bytes) else content.encode()


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the command says of each wrong file; kaldilm would end the process."""
    world = tmp_path_factory.mktemp("world")
    write_lang(world / "lang")
    write_gmm(world / "mono")
    paths = {name: world / f"{number}.arpa" for number, name in enumerate(WRONG)}
    for name, path in paths.items():
        path.write_bytes(as_bytes(WRONG[name][0]))
    command = [sys.executable, "-c", ALL, str(world), *map(str, paths.values())]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = iter(done.stderr.splitlines())
    found = {}
    for name in paths:
        found[name] = []
        for line in lines:
            found[name].append(line)
            if line.startswith("exit status"):
                break
    return paths, found


@pytest.mark.parametrize("name", WRONG)
def test_the_command_says_in_a_line_what_is_wrong_and_where(said, name):
    paths, found = said
    _, line, says = WRONG[name]
    message, status = found[name]
    assert status == "exit status 1"
    place = paths[name] if line is None else f"{paths[name]}:{line}:"
    assert message.startswith(f"espnet-quant4 hybrid-graph: {place}")
    assert says in message


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "made by a tool\n\n" + text + "\nand what follows",
        lambda text: text.replace("\t", "  ").replace("\n\n", "\n"),
        lambda text: gzip.compress(text.encode()),
        # As some tools write what they pruned away.
        lambda text: text.replace("ngram 2=3", "ngram 2=3\nngram 3=0").replace(
            "\\end\\", "\\3-grams:\n\n\\end\\"
        ),
    ],
    ids=["byte-order mark", "CRLF", "comments", "blanks", "gzip", "none of the longest"],
)
def test_other_forms_are_the_same_grammar(tmp_path, change):
    lang = write_lang(tmp_path / "lang")
    grammars = []
    for content in (GOOD, change(GOOD)):
        (tmp_path / "lm.arpa").write_bytes(as_bytes(content))
        grammar, left_out = arpa_to_fst(tmp_path / "lm.arpa", lang / "words.txt")
        assert left_out == []
        grammar.input_symbols = grammar.output_symbols = None
        grammars.append(from_kaldifst(grammar))
    first, second = grammars
    for name in ("source", "target", "ilabel", "olabel", "weight", "finals"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_what_is_written_is_read_again(tmp_path):
    model = estimate([["a", "b"], ["b"]], ["a", "b"], 3)
    write_arpa(model, tmp_path / "lm.arpa")
    again = read_arpa(tmp_path / "lm.arpa")
    assert again.log10_probs == pytest.approx(model.log10_probs, abs=1e-6)
    assert again.log10_backoffs == pytest.approx(model.log10_backoffs, abs=1e-6)


def test_a_folder_is_no_language_model(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_arpa(tmp_path)
    with pytest.raises(LanguageModelError, match="orders \\[1, 3\\]"):
        (tmp_path / "lm.arpa").write_text(
            "\\data\\\nngram 1=1\nngram 2=0\nngram 3=1\n\\1-grams:\n-1 a\n\\2-grams:\n"
            "\\3-grams:\n-1 a a a\n\\end\\\n"
        )
        read_arpa(tmp_path / "lm.arpa")
