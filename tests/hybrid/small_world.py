"""A tiny recognizer's world: two words, their phones, monophone and triphone trees, random scores.

Phones: 1 SIL, 2 A, 3 B; then the disambiguation symbols #0, #1, #2.  Words: "a" = A, "ab" = A B,
"b" = B and its homophone "bee".
"""

import itertools
import math
import struct

import numpy as np

from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm, kaldifst

PHONES = {"<eps>": 0, "SIL": 1, "A": 2, "B": 3, "#0": 4, "#1": 5, "#2": 6, "#3": 7}
DISAMBIGUATION = [4, 5, 6, 7]
WORDS = {"<eps>": 0, "a": 1, "ab": 2, "b": 3, "bee": 4, "#0": 5, "<s>": 6, "</s>": 7}
# Word, phones, its disambiguation symbol.
LEXICON = [("a", "A", "#1"), ("ab", "A B", ""), ("b", "B", "#1"), ("bee", "B", "#2")]
STATES = {1: 1, 2: 2, 3: 2}  # HMM states of each phone: few, so that all paths can be listed
SILENCE_PROBABILITY = 0.5


def topology(states=None):
    """Kaldi's text form, from left to right."""
    lines = ["<Topology>"]
    for phone, count in (states or STATES).items():
        lines += ["<TopologyEntry>", "<ForPhones>", str(phone), "</ForPhones>"]
        for n in range(count):
            to = f"<Transition> {n} 0.6 <Transition> {n + 1} 0.4"
            lines.append(f"<State> {n} <PdfClass> {n} {to} </State>")
        lines += [f"<State> {count} </State>", "</TopologyEntry>"]
    return "\n".join([*lines, "</Topology>", ""])


def monophone_tree():
    counts = [0, *STATES.values()]
    return kaldi_hmm_gmm().monophone_context_dependency(list(STATES), counts)


def triphone_tree_bytes():
    """A tree in which the states of A depend on the phone after it, those of B on that before."""

    def integer(value):
        return b"\4" + struct.pack("<i", value)

    def leaf(pdf):
        return b"CE " + integer(pdf)

    def table(key, entries):  # by index; None where there is none
        items = b"".join(b"NULL " if e is None else e for e in entries)
        # The size is unsigned, which Kaldi marks by a negative width.
        size = b"\xfc" + struct.pack("<I", len(entries))
        return b"TE " + integer(key) + size + b"( " + items + b") "

    def split(key, values, yes, no):
        packed = struct.pack("<i", len(values)) + b"".join(struct.pack("<i", v) for v in values)
        return b"SE " + integer(key) + b"\4" + packed + b"{ " + yes + no + b"} "

    def classes(first):
        return table(-1, [leaf(first), leaf(first + 1)])

    silence = table(-1, [leaf(0)])
    a = split(2, [3], classes(1), classes(3))
    b = split(0, [2], classes(5), classes(7))
    central = table(1, [None, silence, a, b])
    return (
        b"\0BContextDependency "
        + integer(3)
        + integer(1)
        + b"ToPdf "
        + central
        + (b"EndContextDependency ")
    )


def transition_model(tree, states=None):
    khg = kaldi_hmm_gmm()
    parsed = khg.HmmTopology()
    parsed.read(topology(states))
    return khg.TransitionModel(tree, parsed)


def lexicon_fst():
    """L with disambiguation symbols; silence may come first and after each word."""
    cost = -np.log(SILENCE_PROBABILITY)
    lines = [f"0 1 0 0 {cost}", f"0 2 0 0 {cost}", "2 3 1 0", f"3 1 {PHONES['#3']} 0"]
    lines.append(f"1 1 {PHONES['#0']} {WORDS['#0']}")
    state = 4
    for word, phones, symbol in LEXICON:
        labels = [PHONES[p] for p in phones.split() + ([symbol] if symbol else [])]
        at, olabel = 1, WORDS[word]
        for label in labels:
            lines.append(f"{at} {state} {label} {olabel}")
            at, olabel, state = state, 0, state + 1
        lines += [f"{at} 1 0 0 {cost}", f"{at} 2 0 0 {cost}"]
    return kaldifst().compile("\n".join([*lines, "1 0", ""]), acceptor=False)


def write_lang(folder):
    """A lang folder as the package writes it."""
    (folder / "phones").mkdir(parents=True)
    for name, symbols in (("phones.txt", PHONES), ("words.txt", WORDS)):
        (folder / name).write_text("".join(f"{s} {n}\n" for s, n in symbols.items()))
    (folder / "phones/disambig.txt").write_text("#0\n#1\n#2\n#3\n")
    (folder / "oov.txt").write_text("bee\n")
    fst = lexicon_fst()
    kaldifst().arcsort(fst, sort_type="olabel")
    fst.write(str(folder / "L_disambig.fst"))
    return folder


def write_gmm(folder, tree=None):
    """``final.mdl`` and ``tree``: of monophones, or of ``tree``, bytes of a file."""
    folder.mkdir(parents=True)
    if tree is None:
        monophone_tree().write(True, str(folder / "tree"))
    else:
        (folder / "tree").write_bytes(tree)
    from espnet_quant4.hybrid.kaldi_files.tree import read_tree

    model = transition_model(read_tree(folder / "tree"))
    (folder / "final.mdl").write_text(str(model) + "<DIMENSION> 39 \n")
    return folder


def spoken(words):
    """Yield (phones, cost) of all ways to say words: silence may come first and after each word."""
    pronunciations = {word: [PHONES[p] for p in phones.split()] for word, phones, _ in LEXICON}
    for pauses in itertools.product([False, True], repeat=len(words) + 1):
        phones = [1] * pauses[0]
        for word, pause in zip(words, pauses[1:], strict=True):
            phones += pronunciations[word] + [1] * pause
        yield phones, -math.log(SILENCE_PROBABILITY) * len(pauses)


def pdfs_of(phones, tree):
    """The pdf of each HMM state of a phone sequence."""
    width, center = tree.context_width, tree.central_position
    padded = [0] * center + list(phones) + [0] * (width - 1 - center)
    for i, phone in enumerate(phones):
        for state in range(STATES[phone]):
            found, pdf = tree.compute(padded[i : i + width], state)
            assert found
            yield pdf


def exhaustive_search(sentences, tree, scores, acoustic_scale, self_loop_scale=0.1):
    """The best path of each sentence, by trying all: {words: (acoustic cost, graph cost)}.

    ``sentences`` gives the grammar's cost of each.  Straight from the definition of the HMMs.
    """
    stay, leave = (-self_loop_scale * math.log(p) for p in (0.6, 0.4))
    frames = len(scores)
    best = {}
    for words, grammar_cost in sentences.items():
        for phones, cost in spoken(words):
            if not phones:
                continue
            pdfs = list(pdfs_of(phones, tree))
            for cuts in itertools.combinations(range(1, frames), len(pdfs) - 1):
                lengths = np.diff([0, *cuts, frames])
                path = np.repeat(pdfs, lengths)
                acoustic = -acoustic_scale * float(scores[np.arange(frames), path].sum())
                graph = grammar_cost + cost + leave * len(pdfs) + stay * (frames - len(pdfs))
                if words not in best or acoustic + graph < sum(best[words]):
                    best[words] = (acoustic, graph)
    return best
