"""``espnet-quant4 hybrid-lm``: estimate an n-gram language model from transcripts."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.graph.arpa import LanguageModelError, write_arpa
from espnet_quant4.hybrid.graph.ngram import ORDERS, estimate
from espnet_quant4.hybrid.lang.lang_directory import Lang, read_transcripts

_NO_WORDS = ("<eps>", "#0", "<s>", "</s>")


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
    try:
        sentences = read_transcripts(args.text)
        known = set(lang.words) - {*_NO_WORDS, lang.unknown_word}
        unknown = Counter(w for words in sentences.values() for w in words if w not in known)
        # What no text holds should not be recognized either.
        vocabulary = known | ({lang.unknown_word} if unknown else set())
        model = estimate(
            [_mapped(words, known, lang.unknown_word) for words in sentences.values()],
            vocabulary,
            args.order,
        )
        write_arpa(model, args.output)
        if unknown:
            most = ", ".join(f"{word} ({count})" for word, count in unknown.most_common(5))
            print(
                f"{len(unknown)} words without pronunciation, {sum(unknown.values())} times in all, "
                f"count as {lang.unknown_word}: {most}"
            )
        if empty := sum(not words for words in sentences.values()):
            print(f"{empty} utterances without words are left out")
        if args.dev_text:
            dev = read_transcripts(args.dev_text).values()
            spoken = [words for words in dev if known.issuperset(words)]
            print(
                f"{args.dev_text}: perplexity {model.perplexity(spoken):.1f} over {len(spoken)} "
                f"utterances; {len(dev) - len(spoken)} with words without pronunciation left out"
            )
    except (LanguageModelError, OSError) as error:
        print(f"espnet-quant4 hybrid-lm: {error}", file=sys.stderr)
        return 1
    counts = Counter(map(len, model.log10_probs))
    print(
        f"{args.output}: " + ", ".join(f"{n} {order}-grams" for order, n in sorted(counts.items()))
    )
    return 0


def _mapped(words: Sequence[str], known: set[str], unknown: str) -> list[str]:
    return [word if word in known else unknown for word in words]


if __name__ == "__main__":
    sys.exit(run_command("hybrid-lm", main))
