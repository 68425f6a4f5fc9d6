"""Figures of an ablation: bars with intervals, and error rate against size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.report.drawing import BLUE, GREY, RED, new_figure, plain_style

Row = Mapping[str, Any]


@plain_style()
def draw_bars(rows: Sequence[Row], path: Path) -> None:
    """Draw what each variant loses to FP32, with its 95 % interval; SVG or PNG by the file's name.

    Args:
        rows: of `espnet_quant4.report.ablation.collect`.
        path: to write.
    """
    drawn = [row for row in rows if row["difference"] is not None]
    figure, (axes,) = new_figure(1, 7.5, 0.26 * len(drawn) + 0.9)
    for place, row in enumerate(drawn):
        difference = row["difference"]
        low, estimate, high = (difference[key] for key in ("low", "estimate", "high"))
        color = RED if low > 0 else BLUE
        axes.barh(place, estimate, color=color, height=0.7)
        axes.plot([low, high], [place, place], color="black", linewidth=1)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(drawn)), [_label(row) for row in drawn], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("WER minus FP32's, % absolute (red: interval above 0)")
    _save(figure, path)


@plain_style()
def draw_sizes(rows: Sequence[Row], path: Path) -> None:
    """Draw error rate against size, for what differs in bits.

    Args:
        rows: as in `draw_bars`; those of the groups ``reference`` and ``bits`` are drawn, with a line
            through those of `smallest_at_its_error`.
        path: to write.
    """
    figure, (axes,) = new_figure(1, 6.5, 4)
    drawn = [row for row in rows if row["group"] in ("reference", "bits")]
    best = smallest_at_its_error(drawn)
    axes.plot([_megabytes(row) for row in best], [row["wer"] for row in best], "--", color=GREY)
    for row in drawn:
        color = RED if row["difference"] and row["difference"]["low"] > 0 else BLUE
        size = _megabytes(row)
        axes.plot(size, row["wer"], "o", color=color)
        if row["difference"]:
            base = row["wer"] - row["difference"]["estimate"]
            ends = [base + row["difference"][key] for key in ("low", "high")]
            axes.plot([size, size], ends, color=color, linewidth=0.8)
        axes.annotate(
            row["title"], (size, row["wer"]), (4, 4), textcoords="offset points", fontsize=8
        )
    axes.set_xscale("log")
    sizes = [_megabytes(row) for row in drawn]
    shown = [size for size in (0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100) if size <= max(sizes) * 1.2]
    axes.set_xticks(shown, [f"{size:g}" for size in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(sizes) * 0.9, max(sizes) * 1.3)
    axes.set(
        xlabel="size of the weights, MB", ylabel="word error rate, % (interval of the difference)"
    )
    axes.grid(alpha=0.3)
    _save(figure, path)


def smallest_at_its_error(rows: Sequence[Row]) -> list[Row]:
    """Return the rows than which none is smaller without more errors, from the smallest on."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["size_bytes"], row["wer"])):
        if not best or row["wer"] < best[-1]["wer"]:
            best.append(row)
    return best


def _megabytes(row: Row) -> float:
    return float(row["size_bytes"]) / 1e6


def _label(row: Row) -> str:
    return str(row["title"] if row["group"] == "reference" else f"{row['group']}: {row['title']}")


def _save(figure: Any, path: Path) -> None:
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    # The same bytes for the same rows.
    with matplotlib.rc_context({"svg.hashsalt": "espnet_quant4", "svg.fonttype": "none"}):
        figure.savefig(path, metadata=metadata)
