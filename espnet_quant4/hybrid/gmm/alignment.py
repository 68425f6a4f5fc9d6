"""Forced alignment: which transition id each frame belongs to."""

from __future__ import annotations

import filecmp
import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from espnet_quant4.hybrid.gmm.acoustic_model import AcousticModel
from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm
from espnet_quant4.hybrid.kaldi_files.alignment import read_alignments as read_archives
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.lang.lang_directory import Lang
from espnet_quant4.hybrid.openfst import read_kaldifst


@dataclass
class Alignments:
    """Alignments of a data folder.

    Attributes:
        ids: transition ids ``(frames,)`` int32 of each utterance.
        failed: utterances that were left out, with the reason.
        log_likelihood: of all frames, acoustic.
    """

    ids: dict[str, np.ndarray] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    log_likelihood: float = 0.0

    @property
    def frames(self) -> int:
        """Number of aligned frames."""
        return sum(len(ids) for ids in self.ids.values())


class TrainingGraphs:
    """The graph of each utterance's words, for one tree and transition model.

    Args:
        model: a GMM-HMM, or one without mixtures.
        lang: the lang folder.
        transcripts: words of each utterance.
    """

    def __init__(self, model: AcousticModel, lang: Lang, transcripts: Mapping[str, list[str]]):
        khg = kaldi_hmm_gmm()
        self.lang = lang
        self.transcripts = transcripts
        self.compiler = khg.TrainingGraphCompiler(
            trans_model=model.transitions,
            ctx_dep=model.tree,
            lex_fst=read_kaldifst(lang.folder / "L.fst"),
            disambig_syms=lang.ids("disambig"),
            # `align` adds them, as they are by then.
            opts=khg.TrainingGraphCompilerOptions(transition_scale=0.0, self_loop_scale=0.0),
        )
        self._graphs: dict[str, Any] = {}

    def __contains__(self, utterance: str) -> bool:
        return utterance in self.transcripts

    def get(self, utterance: str) -> Any:
        """Return the graph; without transition probabilities, which change in training."""
        if utterance not in self._graphs:
            words = self.lang.word_ids(self.transcripts[utterance])
            self._graphs[utterance] = self.compiler.compile_graph_from_text(words)
        return self._graphs[utterance].copy()


def align(
    model: AcousticModel,
    graphs: TrainingGraphs,
    features: Iterable[tuple[str, np.ndarray]],
    decodable: Any = None,
    beam: float = 10.0,
    retry_beam: float = 40.0,
    acoustic_scale: float = 0.1,
    self_loop_scale: float = 0.1,
) -> Alignments:
    """Find the most likely path of each utterance through its graph.

    What no path is found for within ``beam`` is tried again within ``retry_beam``, and then left out.

    Args:
        model: tree, transition model and, without ``decodable``, mixtures.
        graphs: of the utterances.
        features: utterance and ``(frames, dim)`` float32.
        decodable: makes an object that scores transition ids of what ``features`` gives; GMM if None.
        beam: in units of scaled log likelihood.
        retry_beam: likewise.
        acoustic_scale: factor of log likelihoods.
        self_loop_scale: factor of log probabilities to stay in a state.
    """
    khg = kaldi_hmm_gmm()
    config = khg.AlignConfig(beam=beam, retry_beam=retry_beam)
    result = Alignments()
    for utterance, values in features:
        reason = _why_not(graphs, utterance)
        if reason:
            result.failed[utterance] = reason
            continue
        graph = graphs.get(utterance)
        khg.add_transition_probs(
            trans_model=model.transitions,
            disambig_syms=[],
            transition_scale=1.0,
            self_loop_scale=self_loop_scale,
            fst=graph,
        )
        if decodable is None:
            scorer = khg.DecodableAmDiagGmmScaled(
                am=model.mixtures, tm=model.transitions, feats=values, scale=acoustic_scale
            )
        else:
            scorer = decodable(values, acoustic_scale)
        done, _, _, total, _, ids, _ = khg.align_utterance_wrapper(
            config=config,
            utt=utterance,
            acoustic_scale=acoustic_scale,
            fst=graph,
            decodable=scorer,
            num_done=0,
            num_error=0,
            num_retried=0,
            tot_like=0.0,
            frame_count=0,
        )
        if done:
            result.ids[utterance] = np.array(ids, dtype=np.int32)
            result.log_likelihood += total
        else:
            result.failed[utterance] = f"no path within a beam of {retry_beam:g}"
    return result


def score_decodable(id2pdf: np.ndarray) -> Callable[[np.ndarray, float], Any]:
    """Return the ``decodable`` of `align` for a network's scores, ``(frames, num_pdfs)`` float32.

    Args:
        id2pdf: ``(transition ids + 1,)``.
    """
    khg = kaldi_hmm_gmm()
    # Column i belongs to transition id i + 1, which is what the decodable asks for.
    columns = id2pdf[1:]

    def decodable(values: np.ndarray, scale: float) -> Any:
        # There are many more transition ids than pdfs: one copy of that size, not two.
        return khg.DecodableCtc(np.take(values * np.float32(scale), columns, axis=1))

    return decodable


def _why_not(graphs: TrainingGraphs, utterance: str) -> str:
    if utterance not in graphs:
        return "no transcript"
    return "" if graphs.transcripts[utterance] else "empty transcript"


def write_alignments(
    folder: Path, alignments: Alignments, id2pdf: np.ndarray, num_pdfs: int
) -> None:
    """Write ``ali.1.gz``, ``pdf_ids``, ``pdf_counts`` and ``failed.txt``."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = np.zeros(num_pdfs, dtype=np.int64)
    pdfs_part, ali_part = folder / "pdf_ids.part", folder / "ali.1.gz.part"
    with (
        open(ali_part, "wb") as raw,
        # Without name and time equal alignments are equal files, which later stages go by.
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as ali,
        open(pdfs_part, "w", encoding="utf-8") as pdfs,
    ):
        for utterance in sorted(alignments.ids):
            ids = alignments.ids[utterance]
            of_frames = id2pdf[ids]
            counts += np.bincount(of_frames, minlength=num_pdfs)
            ali.write(f"{utterance} {' '.join(map(str, ids))}\n".encode())
            pdfs.write(f"{utterance} {' '.join(map(str, of_frames))}\n")
    ali_part.replace(folder / "ali.1.gz")
    failed = "".join(f"{u} {why}\n" for u, why in sorted(alignments.failed.items()))
    (folder / "failed.txt").write_text(failed, encoding="utf-8")
    (folder / "pdf_counts").write_text(f"[ {' '.join(map(str, counts))} ]\n", encoding="ascii")
    (folder / "num_pdfs").write_text(f"{num_pdfs}\n", encoding="ascii")
    replace_unless_equal(pdfs_part, folder / "pdf_ids")


def replace_unless_equal(part: Path, path: Path) -> None:
    """Move a file to its place, unless that holds the same: then it keeps its time.

    What was trained on the file is newer then, and stays valid.
    """
    if path.is_file() and filecmp.cmp(part, path, shallow=False):
        part.unlink()
    else:
        part.replace(path)


def read_alignments(folder: Path) -> Alignments:
    """Read the transition ids that `write_alignments` wrote.

    Raises:
        KaldiFileError: for a damaged file.
        FileNotFoundError: where there is none.
    """
    path = folder / "ali.1.gz"
    found = Alignments(ids=dict(read_archives([path])))
    if not found.ids:
        raise KaldiFileError(f"{path}: no utterance in it; make the alignment anew.")
    return found
