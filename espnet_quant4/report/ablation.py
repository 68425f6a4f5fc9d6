"""The table and figures of an ablation: variants of a scheme against the scheme and against FP32."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from espnet_quant4.report.experiment.folder import training_curve
from espnet_quant4.report.results import describe_model, score_texts
from espnet_quant4.report.scoring import Score, ScoringError
from espnet_quant4.report.significance import bootstrap
from espnet_quant4.scheme_variants import Variant

#: What every variant starts from.
FLOAT = Variant("fp32", "reference", "FP32")

COLUMNS = {
    "group": "Of",
    "title": "Variant",
    "each": "WER % by seed",
    "wer": "Mean",
    "difference": "To FP32",
    "interval": "95 % interval",
    "valid_loss": "Dev loss",
    "size": "Size MB",
}


@dataclass(frozen=True)
class Experiments:
    """Where an ablation's systems and their texts are.

    Attributes:
        pattern: of experiment folders, with ``{seed}`` and ``{variant}``.
        seeds: in their order.
        part: folder of the decoding in an experiment's: ``decode_asr/dev``. A quantized system's is
            that of its decoding on codes, ``decode_asr_int4/dev``.
        model: file name of the checkpoint that was decoded.
        task: ESPnet's class of the task that trained them.
    """

    pattern: str
    seeds: Sequence[int]
    part: Path
    model: str = "valid.loss.ave.pth"
    task: Any = None

    def folder(self, variant: str, seed: int) -> Path:
        """Return the folder of a variant's experiment."""
        return Path(self.pattern.format(seed=seed, variant=variant))

    def text(self, variant: str, seed: int) -> Path:
        """Return the file of a variant's recognized text."""
        name, part = self.part.parent.name, self.part.name
        if variant != FLOAT.name:
            name += "_int4"
        return self.folder(variant, seed) / name / part / "text"


def collect(
    variants: Sequence[Variant], experiments: Experiments, reference: Path
) -> list[dict[str, Any]]:
    """Return one entry for FP32 and each variant.

    Args:
        variants: in the order of the table; those without any text are an error.
        experiments: where they are.
        reference: text of the part.

    Returns:
        Entries with ``name``, ``group``, ``title``, ``seeds``, ``each`` (rates by seed), ``wer`` and
        ``cer`` (means, percent), ``spread`` (standard deviation; None for one seed), ``words``,
        ``difference`` (`Difference` to FP32, pooled over seeds; None for FP32), ``valid_loss`` (least
        of the epochs, mean over seeds; None without training), ``bits``, ``weight_bits``,
        ``size_bytes``.

    Raises:
        ScoringError, OSError: where a text or a model is missing, or of other utterances.
    """
    seeds = list(experiments.seeds)
    floats = [score_texts(reference, experiments.text(FLOAT.name, seed)) for seed in seeds]
    rows = []
    for variant in [FLOAT, *variants]:
        scores = [score_texts(reference, experiments.text(variant.name, seed)) for seed in seeds]
        model = describe_model(
            experiments.folder(variant.name, seeds[0]), experiments.model, experiments.task
        )
        rates = [_rate(score["wer"]) for score in scores]
        pairs = [
            (first["wer"].alignments, second["wer"].alignments)
            for first, second in zip(floats, scores, strict=True)
        ]
        rows.append(
            {
                "name": variant.name,
                "group": variant.group,
                "title": variant.title,
                "seeds": seeds,
                "each": [round(rate, 2) for rate in rates],
                "wer": round(statistics.fmean(rates), 2),
                "spread": round(statistics.stdev(rates), 2) if len(rates) > 1 else None,
                "cer": round(statistics.fmean(_rate(score["cer"]) for score in scores), 2),
                "words": scores[0]["wer"].total.words,
                "difference": None if variant is FLOAT else asdict(bootstrap(pairs)),
                "valid_loss": _valid_loss(
                    [experiments.folder(variant.name, seed) for seed in seeds]
                ),
                **{key: model[key] for key in ("bits", "weight_bits", "size_bytes")},
            }
        )
    return rows


def for_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of `collect` as a table shows them."""
    shown = []
    for row in rows:
        difference = row["difference"]
        shown.append(
            {
                **row,
                "each": " ".join(f"{rate:.2f}" for rate in row["each"]),
                "difference": None if difference is None else f"{difference['estimate']:+.2f}",
                "interval": None
                if difference is None
                else f"{difference['low']:+.2f} to {difference['high']:+.2f}",
            }
        )
    return shown


def _rate(score: Score) -> float:
    if not score.total.words:
        raise ScoringError("the reference has no word")
    return score.total.error_rate


def _valid_loss(folders: Sequence[Path]) -> float | None:
    found = []
    for folder in folders:
        losses = [epoch.valid_loss for epoch in training_curve(folder)]
        if not losses:
            return None
        found.append(min(losses))
    return round(statistics.fmean(found), 3)
