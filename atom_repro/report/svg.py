"""Matplotlib figures as SVG text: the same bytes for the same figure."""

import io

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def svg(figure: Figure) -> str:
    """Render the figure as SVG without date and creator, and close it."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "atom-repro", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
