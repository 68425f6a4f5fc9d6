#!/usr/bin/env python3
"""Write AN4's dictionary as a Kaldi lexicon, ``DATA/local/dict/lexicon.txt``.

The dictionary comes with the corpus: ``lexicon.txt`` beside ``train.tsv``, or ``etc/an4.dic`` in
CMU's own distribution. Both are CMU's Sphinx format, ``WORD PHONE...``, where ``WORD(2)`` is a second
pronunciation of ``WORD``; a Kaldi lexicon repeats the word instead. 39 phones or fewer (ARPAbet
without stress). Options are those of the transducer recipe's ``local/data.py``, which finds the
corpus.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from espnet_quant4.text_files import TextFileError, read_lines

ASR_RECIPE = Path(__file__).resolve().parents[2] / "asr1"
ALTERNATIVE = re.compile(r"(.+)\(\d+\)")
# Words in the dictionary's own form; what stands in angle brackets there is silence.
MARKUP = re.compile(r"<.*>|\+\+.*\+\+|;;.*")


def load_data_script() -> ModuleType:
    """Import the transducer recipe's data script, which is in no package."""
    path = ASR_RECIPE / "local" / "data.py"
    spec = importlib.util.spec_from_file_location("an4_data", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def text_lines(path: Path) -> list[str]:
    """Return a text file's lines; SystemExit for what is not text in UTF-8."""
    try:
        return read_lines(path)
    except TextFileError as error:
        raise SystemExit(str(error)) from error


def read_dictionary(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Read a Sphinx dictionary as sorted ``(word, phones)``, each pronunciation once.

    Raises:
        SystemExit: for a word without phones.
    """
    entries = set()
    for number, line in enumerate(text_lines(path), 1):
        word, *phones = line.split() or [""]
        if not word or MARKUP.fullmatch(word):
            continue
        if not phones:
            raise SystemExit(
                f"{path}:{number}: {word} has no phones; expected WORD PHONE..., such as YES Y EH S"
            )
        if match := ALTERNATIVE.fullmatch(word):
            word = match.group(1)
        entries.add((word.upper(), tuple(phones)))
    if not entries:
        raise SystemExit(f"{path}: holds no word; expected lines such as YES Y EH S")
    return sorted(entries)


def main() -> int:
    """Write the lexicon."""
    data = load_data_script()
    args = data.get_parser().parse_args()
    folder = data.find_folder(args)
    if folder is None:
        data.say_not_found()
        return 1
    candidates = [folder / "lexicon.txt", folder / "etc" / "an4.dic"]
    dictionary = next((path for path in candidates if path.is_file()), None)
    if dictionary is None:
        print(
            f"{folder}: no dictionary; expected {' or '.join(str(c) for c in candidates)}. "
            "Put a lexicon there (lines WORD PHONE...).",
            file=sys.stderr,
        )
        return 1
    entries = read_dictionary(dictionary)
    output = args.data / "local" / "dict" / "lexicon.txt"
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{word} {' '.join(phones)}\n" for word, phones in entries)
    # What has not changed keeps its time, by which later stages know that they are done.
    if not output.is_file() or output.read_text(encoding="utf-8") != lines:
        output.write_text(lines, encoding="utf-8")
    words, phones = len({w for w, _ in entries}), {p for _, ps in entries for p in ps}
    print(f"lexicon: {words} words, {len(entries)} pronunciations, {len(phones)} phones")
    return 0


if __name__ == "__main__":
    sys.exit(main())
