"""The table and figures of an ablation: variants of a scheme against the scheme and against FP32."""

from __future__ import annotations

import statistics
import string
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

    Raises:
        ScoringError: where ``pattern`` lacks one of the two, has others or a brace without its
            partner, or a seed stands twice.
    """

    pattern: str
    seeds: Sequence[int]
    part: Path
    model: str = "valid.loss.ave.pth"
    task: Any = None

    def __post_init__(self) -> None:
        valid = (
            "valid is such as exp/seed{seed}/asr_{variant}; write a brace that is meant as {{ or }}"
        )
        try:
            fields = {name for _, name, _, _ in string.Formatter().parse(self.pattern)} - {None}
            self.pattern.format(seed=1, variant="")
        except (ValueError, LookupError, AttributeError) as error:
            raise ScoringError(f"experiments {self.pattern!r}: {error}; {valid}") from error
        # One seed may do without a folder of its own.
        wanted = {"variant", "seed"} if len(self.seeds) > 1 else {"variant"}
        if not wanted <= fields:
            missing = " and ".join(f"{{{name}}}" for name in sorted(wanted - fields))
            raise ScoringError(f"experiments {self.pattern!r}: {missing} is not in it; {valid}")
        twice = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
        if twice or not self.seeds:
            raise ScoringError(
                f"seeds {' '.join(map(str, self.seeds))}: valid is each once, at least one"
            )

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
        ScoringError, TextFileError, OSError: where a text or a model is missing, unreadable or of
            other utterances.
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
