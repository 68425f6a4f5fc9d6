"""From a recording to the scores that a search in a decoding graph adds up."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_quant4.hybrid.model.prior import read_vector
from espnet_quant4.int4.audio import sampling_rate_of
from espnet_quant4.packed_models import packed_files, unpacked
from espnet_quant4.trained_model import load_trained_model

#: Where data are features, the frames of the contract: 10 ms.
FRAMES_PER_SECOND = 100


class AcousticScorer:
    """A trained hybrid model, ready to score whole utterances.

    Args:
        hybrid_train_config: ``config.yaml`` of the training.
        hybrid_model_file: checkpoint, such as ``valid.loss.ave.pth``.
        int4_file: instead of these two: one file made by ``espnet-quant4 convert``.
        log_prior: Kaldi text vector of natural logarithms; None: the one in the INT4 file, or none,
            and the scores are log posteriors.
        prior_scale: what the log prior is multiplied with.
        device: ``cpu`` or ``cuda``.

    Raises:
        ValueError: where not one model is given, for a prior of another size, for an INT4 file that
            cannot be read, and for configuration and checkpoint that do not belong together.
    """

    def __init__(
        self,
        hybrid_train_config: str | Path | None = None,
        hybrid_model_file: str | Path | None = None,
        int4_file: str | Path | None = None,
        log_prior: str | Path | None = None,
        prior_scale: float = 1.0,
        device: str = "cpu",
    ):
        if (hybrid_train_config is None) == (int4_file is None) or (
            (hybrid_model_file is None) != (hybrid_train_config is None)
        ):
            raise ValueError(
                "give either hybrid_train_config and hybrid_model_file, or int4_file; given: "
                f"{hybrid_train_config}, {hybrid_model_file}, {int4_file}."
            )
        self.model: Any
        self.train_args: argparse.Namespace
        stored_prior = None
        if int4_file is not None:
            from espnet_quant4.hybrid.model_file import load

            if device != "cpu":
                raise ValueError(f"device: {device}; an INT4 file computes on the CPU.")
            self.model, self.train_args, stored_prior = load(int4_file)
        else:
            from espnet_quant4.hybrid.task import HybridTask

            assert hybrid_train_config is not None and hybrid_model_file is not None
            self.model, self.train_args = load_trained_model(
                HybridTask, hybrid_train_config, hybrid_model_file, device
            )
        self.model.eval()
        self.device = device
        prior = stored_prior if log_prior is None else read_vector(log_prior)
        if prior is not None and len(prior) != self.model.num_pdfs:
            raise ValueError(
                f"{log_prior or int4_file}: the log prior has {len(prior)} values and the model "
                f"{self.model.num_pdfs} outputs. Take the prior of the alignment that the model "
                "was trained on."
            )
        self._subtracted: torch.Tensor | None = None
        if prior is not None and prior_scale != 0:
            scaled = prior_scale * np.asarray(prior, dtype=np.float64)
            self._subtracted = torch.from_numpy(scaled.astype(np.float32)).to(device)

    @property
    def num_pdfs(self) -> int:
        """Number of scores a frame."""
        return int(self.model.num_pdfs)

    @property
    def samples_per_second(self) -> int:
        """Length of a second of input: of waveforms in samples, of features in frames."""
        if self.model.frontend is None:
            return FRAMES_PER_SECOND
        return sampling_rate_of(self.train_args.frontend_conf)

    def __call__(self, speech: np.ndarray | torch.Tensor, repeat_frames: bool = True) -> np.ndarray:
        """Score one utterance.

        Args:
            speech: ``(samples,)`` or features ``(T, F)``, float32.
            repeat_frames: see `ESPnetHybridModel.log_posteriors`.

        Returns:
            ``(frames, num_pdfs)`` float32: log posterior - prior_scale * log prior, in nats; no
            acoustic scale.

        Raises:
            ValueError: for speech that cannot be scored.
        """
        batch = torch.as_tensor(speech).to(self.device).unsqueeze(0)
        lengths = torch.tensor([batch.size(1)], device=self.device)
        with torch.no_grad():
            scores, _ = self.model.log_posteriors(batch, lengths, repeat_frames)
            if self._subtracted is not None:
                scores = scores - self._subtracted
        found: np.ndarray = scores[0].cpu().numpy()
        return found

    @classmethod
    def from_pretrained(cls, model_tag: str, **options: Any) -> AcousticScorer:
        """Build a scorer from a packed model.

        Args:
            model_tag: a file that ``hybrid_pack`` made, or where ``espnet_model_zoo`` finds one.
            options: of the constructor.
        """
        with unpacked_model(model_tag) as files:
            return cls(**{**files, **options})


@contextmanager
def unpacked_model(model_tag: str) -> Iterator[dict[str, str]]:
    """Unpack what ``hybrid_pack`` packed; gives files by the names of `AcousticScorer`'s arguments.

    An archive of this machine is unpacked anew each time, to a folder that is gone afterwards:
    ``espnet_model_zoo`` would give the files of an earlier archive of the same name.

    Args:
        model_tag: the archive, or a tag that ``espnet_model_zoo`` knows.
    """
    if not Path(model_tag).is_file():
        downloader = import_module("espnet_model_zoo.downloader")
        yield downloader.ModelDownloader().download_and_unpack(model_tag)
        return
    if packed_files(model_tag) is None:
        raise ValueError(
            f"{model_tag}: is no packed model; give what espnet-quant4 hybrid-pack wrote, or the "
            "model's config.yaml and checkpoint (--hybrid_train_config, --hybrid_model_file)."
        )
    with unpacked(model_tag) as files:
        yield files
