"""The page: HTML that needs no other file."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from espnet_quant4.report.experiment.measures import TensorMeasures

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76em; margin: 2em auto; padding: 0 1em;
  color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
th { background: #f3f3f3; }
.bar { display: inline-block; height: .7em; background: #2b6ca3; }
img { max-width: 100%; display: block; }
h3 { font-family: ui-monospace, monospace; font-size: 1em; margin-bottom: .2em; }
.note { color: #555; }
"""

FORMULA = (
    "SQNR = 10 log10( sum x² / sum (x - q(x))² ) dB over all values x of a tensor, q(x) being what "
    "the layer computes with instead; a bit is worth about 6 dB. Clipped: values of a magnitude above "
    "the clip. Codes used: of the 2^bits - 1 codes, those that some value has."
)


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it, in HTML."""

    title: str
    content: list[str] = field(default_factory=list)


def page(title: str, sections: Iterable[Section]) -> str:
    """Return the whole page."""
    body = "\n".join(
        f"<section>\n<h2>{escape(section.title)}</h2>\n"
        + "\n".join(section.content)
        + "\n</section>"
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def picture(png: bytes, text: str) -> str:
    """Return a picture that lies in the page itself; the text is for those who do not see it."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(text)}">'


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of plain text; numbers are set to the right."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    return _table(head, ("".join(_cell(text) for text in row) for row in rows))


def _table(head: str, rows: Iterable[str]) -> str:
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cell(text: str) -> str:
    return f"<td{_number_class(text)}>{escape(text)}</td>"


def _number_class(text: str) -> str:
    digits = text.replace(",", "").removesuffix("%").strip()
    try:
        float(digits)
    except ValueError:
        return ""
    return ' class="number"'


def ranking(tensors: Sequence[TensorMeasures], numbers: Mapping[str, int]) -> str:
    """Return the table of tensors in their order, with bars and links to their pictures.

    Args:
        tensors: worst first.
        numbers: of the pictures, by name of tensor.
    """
    finite = [t.sqnr for t in tensors if math.isfinite(t.sqnr) and t.sqnr > 0]
    largest = max(finite, default=1.0)
    titles = (
        "SQNR dB",
        "",
        "tensor",
        "quantizer",
        "bits",
        "clip",
        "clipped",
        "codes used",
        "values",
    )
    rows = []
    for t in tensors:
        width = 9 * min(max(t.sqnr, 0.0), largest) / largest if math.isfinite(t.sqnr) else 0.0
        name = f'<a href="#tensor{numbers[t.name]}">{escape(t.name)}</a>'
        rows.append(
            _cell(decibel(t.sqnr))
            + f'<td><span class="bar" style="width: {width:.2f}em"></span></td><td>{name}</td>'
            + "".join(
                _cell(text)
                for text in (
                    t.quantizer,
                    str(t.bits),
                    clip_text(t),
                    share(t.clipped),
                    share(t.codes_used),
                    f"{t.values:,}",
                )
            )
        )
    return _table("".join(f"<th>{escape(title)}</th>" for title in titles), rows)


def tensor_section(t: TensorMeasures, number: int, png: bytes) -> str:
    """Return a tensor's heading, facts and picture."""
    facts = []
    if t.shape:
        facts.append(" x ".join(map(str, t.shape)))
    if t.quantizer:
        facts += [f"{t.quantizer}, {t.bits} bits", f"clip {clip_text(t)}"]
        facts += [f"SQNR {decibel(t.sqnr)} dB", f"{share(t.clipped)} clipped"]
        facts.append(f"{share(t.codes_used)} of the codes used")
    facts.append(f"{t.values:,} values")
    if t.passed_over:
        facts.append(f"{t.passed_over:,} more are NaN or infinite")
    return (
        f'<h3 id="tensor{number}">{escape(t.name)}</h3>\n'
        f"{paragraph('; '.join(facts), 'note')}\n{picture(png, f'Histogram of {t.name}')}"
    )


def decibel(value: float) -> str:
    """Return a ratio in dB with one digit; ``-`` where it has none."""
    return "-" if math.isnan(value) else f"{value:.1f}"


def share(value: float) -> str:
    """Return a share as a percentage."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def clip_text(t: TensorMeasures) -> str:
    """Return the clip, or the range of the clips with their number."""
    if t.clips is None:
        return "-"
    low, high = t.clips
    return f"{low:.4g}" if t.groups == 1 else f"{low:.4g} to {high:.4g} ({t.groups})"
