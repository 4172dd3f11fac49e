"""Interactive pictures: a spectrum with its reconstruction and residuals, and a probability over bins."""

from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from prediction import Answer, Reconstruction


# Told apart without colours too: by width, dashes and shading (near Okabe & Ito's palette).
FLUX, MODEL, INTERPOLATION, HIDDEN = "#8a8f98", "#1b85cf", "#00a27a", "#e69f00"
ERROR = "rgba(138, 143, 152, 0.3)"
TEXT, GRID = "#777f8d", "rgba(128, 128, 128, 0.25)"  # readable on white and on black
RESIDUAL_RANGE = 8  # sigma
HOVER = "%{x:.2f} Å: %{y:.4g}"
AXIS = {"gridcolor": GRID, "zeroline": False, "automargin": True, "title": {"font": {"size": 13}, "standoff": 6}}
LAYOUT = {
    "margin": {"l": 8, "r": 8, "t": 32, "b": 8},  # the tools stand at the top
    "font": {"color": TEXT, "size": 12},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": TEXT, "activecolor": MODEL, "remove": ["select", "lasso"]},
}


def draw_spectrum(spectrum: Reconstruction) -> go.Figure:
    """Flux with its error, what the model says, straight lines across what is hidden; below, residuals in sigma."""
    has_model = spectrum.model is not None
    figure = make_subplots(
        rows=1 + has_model, shared_xaxes=True, vertical_spacing=0.04, row_heights=[0.7, 0.3][: 1 + has_model]
    )
    breaks = np.cumsum(spectrum.segment_lengths)[:-1]

    def line(values: np.ndarray, name: str, row: int = 1, **style) -> None:
        x, y = (np.insert(each, breaks, np.nan).astype(np.float32) for each in (spectrum.wavelength, values))
        figure.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines", **style), row, 1)

    x, y = error_band(spectrum)
    band = {"fill": "toself", "fillcolor": ERROR, "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(x=x, y=y, name="± error", mode="lines", **band), 1, 1)
    line(spectrum.flux, "flux", line={"color": FLUX, "width": 1}, hovertemplate=HOVER)
    if has_model:
        if spectrum.interpolation is not None:
            dashes = {"color": INTERPOLATION, "width": 2, "dash": "dash"}
            line(spectrum.interpolation, "straight lines", line=dashes, hovertemplate=HOVER)
        line(spectrum.model, "model", line={"color": MODEL, "width": 1.6}, hovertemplate=HOVER)
        residual = (spectrum.flux - spectrum.model) / spectrum.sigma
        thin = {"color": FLUX, "width": 0.8}
        line(residual, "residual", 2, line=thin, showlegend=False, hovertemplate=HOVER)
        figure.add_hline(0, line={"color": MODEL, "width": 1}, row=2, col=1)
        shade(figure, spectrum)
    style(figure, spectrum)
    return figure


def error_band(spectrum: Reconstruction) -> tuple[np.ndarray, np.ndarray]:
    """Outlines of flux ± sigma, one for each run of usable pixels, with NaN between them."""
    ends = np.cumsum(spectrum.segment_lengths)
    outlines = []
    for start, end in zip(ends - spectrum.segment_lengths, ends):
        for first, last in runs(np.isfinite(spectrum.flux[start:end])):
            x, flux, sigma = (
                each[start + first : start + last] for each in (spectrum.wavelength, spectrum.flux, spectrum.sigma)
            )
            low, high = flux - sigma, flux + sigma
            outlines.append((np.r_[x, x[::-1], x[0], np.nan], np.r_[low, high[::-1], low[0], np.nan]))
    x, y = zip(*outlines)
    return np.concatenate(x).astype(np.float32), np.concatenate(y).astype(np.float32)


def runs(is_in: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where each contiguous run of True begins, and where it has ended."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_in, [0]]).astype(int)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist())


def shade(figure: go.Figure, spectrum: Reconstruction) -> None:
    """Mark what the encoder did not see."""
    for number, (low, high) in enumerate(hidden_stretches(spectrum)):
        area = {"fillcolor": HIDDEN, "opacity": 0.16, "line_width": 0, "layer": "below"}
        figure.add_vrect(low, high, row="all", col=1, **area)
        if number == 0:  # a rectangle has no entry in the legend of its own
            marker = {"symbol": "square", "size": 12, "color": HIDDEN, "opacity": 0.4}
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name="hidden"), 1, 1)


def hidden_stretches(spectrum: Reconstruction) -> Iterator[tuple[float, float]]:
    """First and last wavelength of every contiguous run of hidden pixels in a segment."""
    ends = np.cumsum(spectrum.segment_lengths)
    for start, end in zip(ends - spectrum.segment_lengths, ends):
        for first, last in runs(spectrum.is_hidden[start:end]):
            yield float(spectrum.wavelength[start + first]), float(spectrum.wavelength[start + last - 1])


def style(figure: go.Figure, spectrum: Reconstruction) -> None:
    figure.update_xaxes(**AXIS, range=[spectrum.wavelength.min(), spectrum.wavelength.max()])
    figure.update_yaxes(**AXIS)
    figure.update_xaxes(title_text="vacuum wavelength [Å]", row=1 + (spectrum.model is not None), col=1)
    figure.update_yaxes(title_text="flux", range=flux_range(spectrum), row=1, col=1)
    if spectrum.model is not None:
        figure.update_yaxes(title_text="residual [σ]", range=[-RESIDUAL_RANGE, RESIDUAL_RANGE], row=2, col=1)
    figure.update_layout(
        **LAYOUT, height=540, hovermode="x", dragmode="zoom",
        legend={"orientation": "h", "yanchor": "top", "y": -0.14, "x": 0, "font": {"size": 12}},
    )  # fmt: skip


def flux_range(spectrum: Reconstruction) -> list[float]:
    """Where most of the flux and of the model lie: a single cosmic ray must not flatten the rest."""
    values = [spectrum.flux] + ([] if spectrum.model is None else [spectrum.model])
    low, high = np.nanpercentile(np.concatenate(values), [0.5, 99.7])
    room = (high - low) or 1.0
    return [float(low - 0.15 * room), float(high + 0.25 * room)]


def draw_bins(answer: Answer) -> go.Figure:
    """A number's probability over its bins, and what the file says."""
    edges, shares = answer.bins
    density = shares / np.diff(edges)
    figure = go.Figure(
        go.Scatter(
            x=np.repeat(edges, 2)[1:-1], y=np.repeat(density, 2), mode="lines", fill="tozeroy", name="probability",
            line={"color": MODEL, "width": 1}, hovertemplate="%{x:.4g}: %{y:.3g}",
        )
    )  # fmt: skip
    if answer.known is not None:
        figure.add_vline(answer.known, line={"color": HIDDEN, "dash": "dash", "width": 2}, annotation_text="file")
    figure.update_xaxes(title_text=answer.name, **AXIS)
    figure.update_yaxes(title_text="probability density", **AXIS)
    figure.update_layout(**LAYOUT, height=260, showlegend=False)
    return figure
