"""``espnet-quant4 hybrid-lm``: estimate an n-gram language model from transcripts."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.graph.arpa import ArpaModel, write_arpa
from espnet_quant4.hybrid.graph.arpa_reader import read_arpa
from espnet_quant4.hybrid.graph.ngram import ORDERS, estimate
from espnet_quant4.hybrid.lang.lang_directory import Lang, read_transcripts
from espnet_quant4.hybrid.lang.lexicon import RESERVED, count_unknown, describe_unknown
from espnet_quant4.hybrid.stage_record import Stage, file_input, folder_inputs


def main(arguments: Sequence[str] | None = None) -> int:
    """Write an ARPA file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="espnet-quant4 hybrid-lm", description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="transcripts of the training part")
    parser.add_argument("--lang", type=Path, required=True, help="lang folder: the vocabulary")
    parser.add_argument("--order", type=int, choices=ORDERS, default=2, help="words of an n-gram")
    parser.add_argument("--output", type=Path, required=True, help="ARPA file")
    parser.add_argument("--dev_text", type=Path, help="transcripts to tell the perplexity of")
    args = parser.parse_args(arguments)
    lang = Lang(args.lang)
    inputs = {"text": file_input(args.text)}
    inputs |= folder_inputs("lang", args.lang, ("words.txt", "oov.txt"))
    stage = Stage("hybrid-lm", args.output, (), inputs, {"order": args.order})
    known = set(lang.words) - {*RESERVED, lang.unknown_word}
    if stage.begin(print):
        model = _estimated(args, lang, known)
        write_arpa(model, args.output)
        stage.finish()
    else:
        model = read_arpa(args.output)
    if args.dev_text:
        dev = read_transcripts(args.dev_text).values()
        spoken = [words for words in dev if known.issuperset(words)]
        print(
            f"{args.dev_text}: perplexity {model.perplexity(spoken):.1f} over {len(spoken)} "
            f"utterances; {len(dev) - len(spoken)} with words without pronunciation left out"
        )
    counts = Counter(map(len, model.log10_probs))
    print(
        f"{args.output}: " + ", ".join(f"{n} {order}-grams" for order, n in sorted(counts.items()))
    )
    return 0


def _estimated(args: argparse.Namespace, lang: Lang, known: set[str]) -> ArpaModel:
    """Return the model of the text; says what of it has no pronunciation."""
    sentences = read_transcripts(args.text)
    unknown = count_unknown(sentences, known)
    if unknown:
        print(
            f"{args.text}: {describe_unknown(unknown, sentences, known)}; they count as "
            f"{lang.unknown_word}"
        )
    if empty := sum(not words for words in sentences.values()):
        print(f"{empty} utterances without words are left out")
    # What no text holds should not be recognized either.
    vocabulary = known | ({lang.unknown_word} if unknown else set())
    mapped = [_mapped(words, known, lang.unknown_word) for words in sentences.values()]
    return estimate(mapped, vocabulary, args.order)


def _mapped(words: Sequence[str], known: set[str], unknown: str) -> list[str]:
    return [word if word in known else unknown for word in words]


if __name__ == "__main__":
    sys.exit(run_command("hybrid-lm", main))
