"""Reading ARPA files: all that cannot become a grammar is refused here, with file and line.

``kaldilm`` ends the process over a file that it does not like, so it never sees one of a user's.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

from espnet_quant4.hybrid.graph.arpa import BEGIN, END, ArpaModel, LanguageModelError
from espnet_quant4.text_files import decode_text, read_text, split_lines

_GZIP = b"\x1f\x8b"
_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")
_SECTION = re.compile(r"\\(\d+)-grams:")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_OTHER_SPACE = re.compile(r"[^\S \t]")
# Labels that graphs use for themselves.
_RESERVED = ("<eps>", "#0")
# What rounding may leave above 0, as log10.
_LARGEST = 1e-4


def read_arpa(path: str | Path) -> ArpaModel:
    """Read an ARPA file, compressed by gzip or not, in UTF-8 with any line ends.

    Raises:
        LanguageModelError: naming the line, for one that belongs nowhere; a probability that is no
            finite number up to 0; a word that graphs use for themselves, such as ``<eps>``; an n-gram
            that stands twice, or of words that are no 1-grams; a backoff weight of the longest n-grams;
            sections or counts that do not agree with the head; a file without ``<s>`` or ``</s>``, or
            that is cut off.
        TextFileError: for a file that is no text in UTF-8.
        OSError: where it cannot be read.
    """
    return _Reader(Path(path)).read()


class _Reader:
    """Goes through the lines of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = ArpaModel()
        # Of each order: how many n-grams the head promises, and where.
        self.counts: dict[int, int] = {}
        self.heads: dict[int, int] = {}
        self.order = 0
        self.found = 0
        self.line = 0

    def read(self) -> ArpaModel:
        lines = split_lines(_text(self.path))
        begin = next((n for n, line in enumerate(lines) if line.strip() == "\\data\\"), None)
        if begin is None:
            raise LanguageModelError(
                f"{self.path}: no line \\data\\, with which an ARPA file begins; give a file in "
                "that form."
            )
        # What stands before is a comment.
        for self.line, line in enumerate(lines[begin + 1 :], begin + 2):
            content = line.strip(" \t")
            if content == "\\end\\":
                self._end_section(content)
                return self._checked()
            if content:
                self._take(content)
        raise LanguageModelError(
            f"{self.path}:{len(lines)}: the file ends without a line \\end\\; it is cut off. "
            "Make or copy "
            "it anew."
        )

    def _take(self, content: str) -> None:
        if match := _SECTION.fullmatch(content):
            self._end_section(content)
            self.order, self.found = int(match.group(1)), 0
        elif content.startswith("\\") and len(content.split()) == 1:
            self._fail(
                f"{content!r} is no section of an ARPA file", "valid: \\ORDER-grams: and \\end\\"
            )
        elif self.order:
            self._ngram(content)
        elif match := _COUNT.fullmatch(content):
            order, count = map(int, match.groups())
            if order != len(self.counts) + 1:
                self._fail(
                    f"{content!r} where the number of {len(self.counts) + 1}-grams is due",
                    "Order these lines",
                )
            self.counts[order], self.heads[order] = count, self.line
        else:
            self._fail(f"{content!r} is no line of an ARPA file's head", "valid: ngram ORDER=COUNT")

    def _end_section(self, following: str) -> None:
        """Check the section that ends, and that ``following`` is what comes after it."""
        wanted = self.counts.get(self.order)
        if self.order and self.found != wanted:
            self._fail(
                f"the section of {self.order}-grams that ends here has {self.found} of them, but line "
                f"{self.heads[self.order]} says {wanted}",
                "The file is damaged; make or copy it anew",
            )
        due = f"\\{self.order + 1}-grams:" if self.order < len(self.counts) else "\\end\\"
        if following != due:
            self._fail(
                f"{following!r} where {due!r} is due; the head names n-grams of orders "
                f"{', '.join(map(str, self.counts)) or 'none'}",
                "The file is damaged; make or copy it anew",
            )

    def _ngram(self, content: str) -> None:
        if match := _OTHER_SPACE.search(content):
            self._fail(
                f"white space U+{ord(match.group()):04X} in {content!r}",
                "valid are blanks and tabs",
            )
        fields, order = content.split(), self.order
        if not order + 1 <= len(fields) <= order + 2:
            self._fail(
                f"{content!r} has {len(fields)} fields in the section of {order}-grams",
                f"valid: a log10 probability, {order} words and perhaps a backoff weight",
            )
        words = tuple(fields[1 : order + 1])
        probability = self._number(fields[0], "log10 probability")
        # Files give anything for that of <s>, which is never predicted.
        if probability > _LARGEST and words != (BEGIN,):
            self._fail(
                f"log10 probability {fields[0]} of {' '.join(words)!r}", "valid are numbers up to 0"
            )
        self._check_words(words)
        self.model.log10_probs[words] = min(probability, 0.0)
        if len(fields) == order + 2:
            if order == len(self.counts):
                self._fail(
                    f"a backoff weight {fields[-1]} of {' '.join(words)!r}, which no longer "
                    "n-gram extends",
                    f"Remove the last column of the {order}-grams, or say in the head that "
                    "longer ones follow",
                )
            self.model.log10_backoffs[words] = self._number(fields[-1], "backoff weight")
        self.found += 1

    def _number(self, text: str, what: str) -> float:
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            self._fail(
                f"{what} {text!r}", "valid are finite numbers; -99 stands for what never happens"
            )
        return value

    def _check_words(self, words: tuple[str, ...]) -> None:
        for word in words:
            if word in _RESERVED:
                self._fail(
                    f"the word {word!r} is reserved for graphs", "Estimate the model without it"
                )
            if len(words) > 1 and (word,) not in self.model.log10_probs:
                self._fail(
                    f"{word!r} of {' '.join(words)!r} is not among the 1-grams",
                    "The file is damaged; make or copy it anew",
                )
        if words in self.model.log10_probs:
            self._fail(
                f"{' '.join(words)!r} stands for the second time", "Remove one of the two lines"
            )

    def _checked(self) -> ArpaModel:
        orders = [order for order, count in self.counts.items() if count]
        if orders != list(range(1, len(orders) + 1)):
            raise LanguageModelError(
                f"{self.path}:{self.heads.get(1, self.line)}: n-grams of orders {orders}; valid "
                "are orders "
                "from 1 up without a gap."
            )
        for word in (BEGIN, END):
            if (word,) not in self.model.log10_probs:
                raise LanguageModelError(
                    f"{self.path}: {word} is not among the 1-grams (from line "
                    f"{self.heads.get(1, 1)}), and a "
                    "grammar needs it. Estimate the model of sentences with <s> and </s>."
                )
        return self.model

    def _fail(self, what: str, todo: str) -> None:
        raise LanguageModelError(f"{self.path}:{self.line}: {what}. {todo[0].upper()}{todo[1:]}.")


def _text(path: Path) -> str:
    if path.is_dir():
        return read_text(path)
    content = path.read_bytes()
    if not content.startswith(_GZIP):
        return decode_text(content, path)
    try:
        return decode_text(gzip.decompress(content), path)
    except (EOFError, OSError, zlib.error) as error:
        raise LanguageModelError(
            f"{path}: damaged gzip file ({error}); make or copy it anew."
        ) from error
