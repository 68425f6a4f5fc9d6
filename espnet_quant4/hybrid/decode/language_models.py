"""Costs of sentences by a language model: an ARPA file, a grammar's FST, or one of ESPnet's."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from espnet_quant4.hybrid.graph.arpa import LanguageModelError
from espnet_quant4.hybrid.graph.arpa_reader import read_arpa
from espnet_quant4.hybrid.graph.grammar import BACKOFF
from espnet_quant4.hybrid.kaldi import kaldifst
from espnet_quant4.hybrid.openfst import read_kaldifst
from espnet_quant4.text_files import read_symbols

KINDS = ".arpa, .arpa.gz, .fst (with its words.txt), .pth (with --lm_train_config), .int4"


class SentenceCost(Protocol):
    """A language model."""

    def __call__(self, words: Sequence[str]) -> float:
        """Return minus the natural logarithm of the sentence's probability, its end included."""
        ...


def load_language_model(
    path: Path, words: Path | None = None, train_config: Path | None = None
) -> SentenceCost:
    """Load a language model; its kind is told by the file's ending.

    Args:
        path: the file.
        words: symbol table of an FST; ``words.txt`` beside it if None.
        train_config: ``config.yaml`` of ESPnet's; that beside the file if None.

    Raises:
        LanguageModelError: for another ending, or a file that does not load.
    """
    if path.name.endswith((".arpa", ".arpa.gz")):
        return ArpaCost(path)
    if path.suffix == ".fst":
        return GrammarCost(path, words or path.with_name("words.txt"))
    if path.suffix == ".pth":
        return EspnetCost(train_config or path.with_name("config.yaml"), path)
    if path.suffix == ".int4":
        return EspnetCost(None, path)
    raise LanguageModelError(f"{path}: no language model by its ending; valid: {KINDS}")


class ArpaCost:
    """A backoff n-gram model.

    Args:
        path: ARPA file.
    """

    def __init__(self, path: Path) -> None:
        self._model = read_arpa(path)

    def __call__(self, words: Sequence[str]) -> float:
        return -self._model.log_prob(words)


class GrammarCost:
    """A grammar as the graph holds it: of several paths, such as by backoff, the best one counts.

    Args:
        path: ``G.fst``: input labels words and ``#0``, output labels words.
        words: symbol table.
    """

    def __init__(self, path: Path, words: Path) -> None:
        fsts = kaldifst()
        self._grammar = read_kaldifst(path)
        self._words: Mapping[str, int] = read_symbols(words)
        # Output labels: backoff arcs have none there.
        fsts.arcsort(self._grammar, sort_type="olabel")
        self._where = path

    def __call__(self, words: Sequence[str]) -> float:
        fsts = kaldifst()
        unknown = [word for word in words if word not in self._words or word == BACKOFF]
        if unknown:
            raise LanguageModelError(f"{self._where}: its words.txt lacks {', '.join(unknown)}")
        sentence = fsts.make_linear_acceptor([self._words[word] for word in words])
        best = fsts.shortest_path(fsts.compose(self._grammar, sentence))
        if best.num_states == 0:
            return math.inf
        _, _, _, cost = fsts.get_linear_symbol_sequence(best)
        return float(cost.value)


class EspnetCost:
    """A language model of ESPnet's ``LMTask``, quantized or not.

    Args:
        train_config: its ``config.yaml``, which names its tokens; None: they are in an INT4 file.
        model_file: its parameters, or the INT4 file.
    """

    def __init__(self, train_config: Path | None, model_file: Path) -> None:
        import torch
        from espnet2.tasks.lm import LMTask
        from espnet2.text.build_tokenizer import build_tokenizer
        from espnet2.text.token_id_converter import TokenIDConverter

        from espnet_quant4.int4.lm_file import load
        from espnet_quant4.trained_model import load_trained_model

        # The tokenizer reads its SentencePiece model when it first needs it.
        self._files = tempfile.TemporaryDirectory(prefix="espnet_quant4_")
        if train_config is None:
            model, args = load(model_file, Path(self._files.name))
        else:
            model, args = load_trained_model(LMTask, train_config, model_file)
        self._model = model.eval()
        self._torch = torch
        self._tokenizer: Any = build_tokenizer(
            token_type=args.token_type,
            bpemodel=args.bpemodel,
            non_linguistic_symbols=getattr(args, "non_linguistic_symbols", None),
        )
        self._converter = TokenIDConverter(token_list=args.token_list)

    def __call__(self, words: Sequence[str]) -> float:
        torch = self._torch
        tokens = self._tokenizer.text2tokens(" ".join(words))
        ids = torch.tensor([self._converter.tokens2ids(tokens)], dtype=torch.long)
        with torch.no_grad():
            costs, _ = self._model.nll(ids, torch.tensor([ids.shape[1]]))
        return float(costs.sum())
