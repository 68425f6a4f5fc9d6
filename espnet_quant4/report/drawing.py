"""What all figures have in common: colours, style, and no display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from espnet_quant4.extras import install_command
from espnet_quant4.report.experiment.error import ReportError

BLUE, RED, GREY = "#2b6ca3", "#c23b22", "#999999"


def require_matplotlib() -> None:
    """Raise ReportError where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ReportError(
            f"matplotlib draws figures, and cannot be imported ({error}): "
            f"{install_command('report')}"
        ) from error


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw in matplotlib's own style: the user's must not change what is drawn."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def new_figure(columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """Return a figure of so many inches and its axes, side by side."""
    # Without pyplot, which keeps figures and looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])
