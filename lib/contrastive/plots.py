"""Every figure of the reports, each with the text that stands in for it where it cannot be seen."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .augment import Augment
from .evaluate import ARMS

INK, MUTED = "#1b2a33", "#5c6b75"
_palette = sns.color_palette("colorblind").as_hex()
COLOURS = {"blue": _palette[0], "orange": _palette[1], "green": _palette[2], "grey": "#7a7a7a"}
ARM_COLOURS = dict(zip(ARMS, (COLOURS[c] for c in ("blue", "orange", "green", "grey")), strict=True))
THEME: dict[str, Any] = {
    "figure.facecolor": "white",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e3e8eb",
}
PIXELS_PER_INCH = 200  # twice the size at which a page shows them


@dataclass(frozen=True)
class Picture:
    """A figure and its alternative text. As the last value of a notebook cell it shows itself, with that text."""

    figure: Figure
    alt: str

    def png(self) -> bytes:
        """The figure as PNG, at twice its displayed size."""
        buffer = io.BytesIO()
        # Without the software's version in it the same figure gives the same bytes.
        self.figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        png = self.png()
        width = int.from_bytes(png[16:20], "big") // 2  # from the PNG's header
        return {"image/png": png, "text/plain": self.alt}, {"image/png": {"alt": self.alt, "width": width}}


def _axes(rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 3.6), **kw: Any) -> tuple[Figure, Any]:
    # Figures are made without pyplot, so that none is shown twice or kept for ever.
    with matplotlib.rc_context(sns.axes_style("whitegrid") | THEME):
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, **kw)


def _show(axes: Any, image: Tensor) -> None:
    """Draw one uint8 C x H x W image without axes."""
    array = image.permute(1, 2, 0).numpy()
    axes.imshow(array.squeeze(-1) if array.shape[-1] == 1 else array, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()


def augmentation_grid(images: Tensor, augment: Augment, draws: int = 7, seed: int = 0) -> Picture:
    """Each image (uint8 N x C x H x W) in a row, beside several random views of it."""
    generator = torch.Generator().manual_seed(seed)
    mean, std = augment.mean.view(1, -1, 1, 1), augment.std.view(1, -1, 1, 1)
    views = [(augment(images, generator) * std + mean).clamp(0, 1).mul(255).round().byte() for _ in range(draws)]
    figure, axes = _axes(len(images), draws + 1, (0.85 * (draws + 1), 0.9 * len(images)), squeeze=False)
    for row, image in zip(axes, range(len(images)), strict=True):
        for place, panel in zip(row, [images, *views], strict=True):
            _show(place, panel[image])
    axes[0, 0].set_title("image", fontsize=9)
    axes[0, 1].set_title("random views", fontsize=9)
    return Picture(figure, f"{len(images)} images, each beside {draws} random views of it.")


def loss_curve(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Picture:
    """NT-Xent per epoch with its chance level, and how often the positive is the nearest view. One line per run."""
    figure, (left, right) = _axes(1, 2, (7.6, 3.2))
    for (name, history), colour in zip(histories.items(), sns.color_palette("colorblind"), strict=False):
        epochs = [h["epoch"] for h in history]
        marker = "o" if len(epochs) < 3 else None
        left.plot(epochs, [h["loss"] for h in history], color=colour, label=name, marker=marker)
        right.plot(epochs, [100 * h["top1"] for h in history], color=colour, marker=marker)
    last = next(iter(histories.values()))[-1]
    left.axhline(last["chance_loss"], color=MUTED, ls="--", lw=1)
    left.annotate(
        f"chance: ln(2N-1) = {last['chance_loss']:.2f}",
        (0.98, last["chance_loss"]),
        (0, -4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="top",
        color=MUTED,
    )
    left.set(xlabel="epoch", ylabel="NT-Xent (nats)", ylim=(0, last["chance_loss"] * 1.06))
    right.set(xlabel="epoch", ylabel="positive is nearest (% of anchors)", ylim=(0, 100))
    if len(histories) > 1:
        left.legend(frameon=False)
    return Picture(
        figure,
        f"Loss by epoch, from {next(iter(histories.values()))[0]['loss']:.2f} to {last['loss']:.2f} nats, below its "
        f"chance level of {last['chance_loss']:.2f}; contrastive accuracy, ending at {100 * last['top1']:.0f} %.",
    )


def similarity_matrix(z: Tensor, n: int) -> Picture:
    """Cosines between the projections (2n x D) of two views of n images: views of one image lie n off the diagonal."""
    z = torch.nn.functional.normalize(z.float(), dim=1)
    cosine = (z @ z.T).numpy()
    figure, axes = _axes(size=(5.2, 4.4))
    sns.heatmap(cosine, vmin=-1, vmax=1, cmap="vlag", ax=axes, square=True, cbar_kws={"label": "cosine similarity"})
    index = np.arange(2 * n)
    axes.scatter(index + 0.5, np.roll(index, n) + 0.5, s=90 / n**0.5, facecolors="none", edgecolors="black", lw=0.8)
    axes.set(xlabel="view", ylabel="anchor", xticks=[n / 2, 1.5 * n], yticks=[n / 2, 1.5 * n])
    axes.set_xticklabels(["first views", "second views"])
    axes.set_yticklabels(["first views", "second views"], rotation=90, va="center")
    positive = cosine[index, np.roll(index, n)].mean()
    negative = (cosine.sum() - 2 * n - 2 * n * positive) / (2 * n * (2 * n - 2))
    return Picture(
        figure,
        f"Matrix of cosine similarities of {2 * n} views; positives, circled, average {positive:.2f}, "
        f"negatives {negative:.2f}.",
    )


def first_filters(before: Tensor, after: Tensor) -> Picture:
    """The first convolution's kernels (out x in x h x w), shown by their channels' mean, before and after training."""
    n = len(after)
    columns = min(16, n)
    rows = -(-n // columns)
    figure, axes = _axes(2 * rows, columns, (0.45 * columns, 0.95 * rows + 0.5), squeeze=False)
    for half, (title, kernels) in enumerate((("before training", before), ("after training", after))):
        pictures = kernels.mean(1).numpy()
        limit = np.abs(pictures).max()
        for i, place in enumerate(axes[half * rows : (half + 1) * rows].flat):
            place.set_axis_off()
            if i < n:
                place.imshow(pictures[i], cmap="vlag", vmin=-limit, vmax=limit)
        axes[half * rows, 0].set_title(title, loc="left")
    return Picture(figure, f"The {n} kernels of the first convolution, before and after training.")


def embedding_maps(maps: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> Picture:
    """Two-dimensional maps (N x 2) of the same images, side by side, coloured by class, classes named in place."""
    palette = sns.color_palette("husl" if len(classes) > 10 else "tab10", len(classes))
    figure, axes = _axes(1, len(maps), (3.9 * len(maps), 3.9), squeeze=False)
    for place, (title, points) in zip(axes.flat, maps.items(), strict=True):
        for c, name in enumerate(classes):
            own = points[labels == c]
            place.scatter(own[:, 0], own[:, 1], s=4, color=palette[c], alpha=0.6, lw=0, rasterized=True)
            if len(own):
                x, y = np.median(own, axis=0)
                place.text(
                    x,
                    y,
                    name,
                    weight="bold",
                    ha="center",
                    va="center",
                    bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": palette[c], "alpha": 0.85},
                )
        place.set(title=title, xticks=[], yticks=[])
        place.grid(visible=False)
    return Picture(figure, f"Two-dimensional maps of {len(labels)} test images by t-SNE: {'; '.join(maps)}.")


def image_rows(
    images: Tensor, rows: Sequence[Sequence[int]], titles: Sequence[Sequence[str]], alt: str, head: str = ""
) -> Picture:
    """Rows of images (indices into uint8 N x C x H x W), each with a short title."""
    figure, axes = _axes(len(rows), len(rows[0]), (0.95 * len(rows[0]), 1.12 * len(rows)), squeeze=False)
    for places, row, names in zip(axes, rows, titles, strict=True):
        for place, index, name in zip(places, row, names, strict=True):
            _show(place, images[index])
            place.set_title(name, fontsize=8, loc="center", pad=2)
    if head:
        figure.suptitle(head, x=0.01, ha="left", fontsize=10)
    return Picture(figure, alt)


def label_budget_curve(metrics: Mapping[str, Mapping[str, Any]], budgets: Sequence[int], dataset: str) -> Picture:
    """Test error against the number of labels, for every arm, with one standard deviation over seeds."""
    figure, axes = _axes(size=(7.2, 4.0))
    said = []
    for prefix, name in ARMS.items():
        mean = np.array([metrics[f"{prefix}_accuracy@{n}"]["mean"] for n in budgets])
        std = np.array([metrics[f"{prefix}_accuracy@{n}"]["std"] for n in budgets])
        error = np.maximum(100 - mean, 1e-2)
        bars = std if any(std) else None
        axes.errorbar(budgets, error, yerr=bars, color=ARM_COLOURS[prefix], marker="o", ms=4, capsize=3, label=name)
        said.append(f"{name}: {mean[0]:.1f} % right with {budgets[0]:,} labels, {mean[-1]:.1f} % with {budgets[-1]:,}")
    axes.set(xscale="log", yscale="log", xlabel="labels", ylabel=f"test error on {dataset} (%)")
    axes.set_xticks(budgets, [f"{n:,}" for n in budgets])
    axes.xaxis.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    axes.legend(frameon=False)
    return Picture(figure, "Test error against number of labels. " + "; ".join(said) + ".")


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Picture:
    """Counts of test images by true and predicted class; the colour shows mistakes, in % of the true class."""
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    wrong = share * (1 - np.eye(len(matrix)))
    figure, axes = _axes(size=(5.6, 4.6))
    sns.heatmap(
        wrong,
        annot=matrix,
        fmt="d",
        cmap="Blues",
        ax=axes,
        square=True,
        xticklabels=classes,
        yticklabels=classes,
        annot_kws={"size": 8},
        cbar_kws={"label": "mistakes (% of the true class)"},
    )
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(axis="y", rotation=0)
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    return Picture(
        figure,
        f"Confusion matrix of {matrix.sum():,} test images; the largest share of mistakes is {classes[true]} taken for "
        f"{classes[predicted]}, {matrix[true, predicted]} times.",
    )


def ablation(points: Mapping[str, Sequence[float]], base: str, noise: float, n_labels: int) -> Picture:
    """Validation accuracy of each point (its values over seeds), and a band: the base +- `noise`."""
    figure, axes = _axes(size=(7.0, 0.42 * len(points) + 1.1))
    reference = float(np.mean(points[base]))
    axes.axvspan(reference - noise, reference + noise, color=COLOURS["blue"], alpha=0.12, lw=0)
    axes.axvline(reference, color=COLOURS["blue"], lw=1)
    for y, (name, values) in enumerate(points.items()):
        colour = COLOURS["blue"] if name == base else INK
        axes.plot(values, [y] * len(values), "o", color=colour, ms=4, alpha=0.5)
        axes.plot(np.mean(values), y, "|", color=colour, ms=14, mew=2)
    axes.set(xlabel=f"validation accuracy of a linear probe with {n_labels:,} labels (%)")
    axes.set_yticks(range(len(points)), list(points))
    axes.invert_yaxis()
    said = ", ".join(f"{name} {np.mean(values):.2f} %" for name, values in points.items())
    return Picture(
        figure, f"Validation accuracy by setting: {said}. 95 % interval of a difference: plus or minus {noise:.2f}."
    )


def measured_bars(values: Mapping[str, Mapping[str, float]], quantity: str) -> Picture:
    """Medians of repeated measurements as bars, the first one's in colour, with lines from smallest to largest."""
    figure, axes = _axes(size=(7.0, 0.42 * len(values) + 0.9))
    for y, v in enumerate(values.values()):
        axes.barh(y, v["median"], color=COLOURS["blue" if y == 0 else "grey"], height=0.62)
        axes.plot([v["min"], v["max"]], [y, y], color=INK, lw=1.5)
        axes.annotate(f"{v['median']:,.0f}", (v["max"], y), (5, 0), textcoords="offset points", va="center")
    axes.set(xlabel=quantity)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    said = ", ".join(f"{name} {v['median']:,.0f}" for name, v in values.items())
    return Picture(figure, f"{quantity[0].upper()}{quantity[1:]}: {said}.")


def loss_scaling(losses: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Picture:
    """Time and extra memory of implementations of a loss (number of images -> name -> measurements)."""
    figure, panels = _axes(1, 2, (7.4, 3.4))
    names = list(dict.fromkeys(name for arms in losses.values() for name in arms))
    said = []
    for name, colour in zip(names, ("blue", "orange", "green", "grey"), strict=False):
        sizes = [n for n in losses if name in losses[n]]
        time = [losses[n][name]["milliseconds"]["median"] for n in sizes]
        memory = [max(losses[n][name]["extra_MiB"], 0.1) for n in sizes]
        for axes, values in zip(panels, (time, memory), strict=True):
            axes.plot([int(n) for n in sizes], values, "o-", color=COLOURS[colour], ms=4, label=name)
        said.append(f"{name} {time[-1]:,.1f} ms and {memory[-1]:,.0f} MiB for {int(sizes[-1]):,} images")
    for axes, label in zip(panels, ("time of value and gradient (ms)", "extra memory (MiB)"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="images in the batch", ylabel=label)
        axes.set_xticks([int(n) for n in losses], [f"{int(n):,}" for n in losses])
        axes.xaxis.minorticks_off()
    panels[1].legend(frameon=False, loc="lower right")
    return Picture(figure, f"Cost of NT-Xent by batch size. At the largest measured: {'; '.join(said)}.")
