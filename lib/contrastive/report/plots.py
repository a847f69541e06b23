"""Figures of views, training and features."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
import torch
from torch import Tensor

from ..augment import Augment
from ..methods import Logged
from .pictures import (
    Sketch,
    class_colours,
    colour_map,
    current_theme,
    figure,
    name_lines,
    style_of_many,
    subplots,
    themed_colour,
)


def _show(axes: Any, image: Tensor) -> None:
    """Draw one uint8 C x H x W image without axes."""
    array = image.permute(1, 2, 0).numpy()
    axes.imshow(array.squeeze(-1) if array.shape[-1] == 1 else array, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()


@figure
def augmentation_grid(images: Tensor, augment: Augment, draws: int = 7, seed: int = 0) -> Sketch:
    """Each image (uint8 N x C x H x W) in a row, beside several random views of it."""
    generator = torch.Generator().manual_seed(seed)
    mean, std = augment.mean.view(1, -1, 1, 1), augment.std.view(1, -1, 1, 1)
    views = [(augment(images, generator) * std + mean).clamp(0, 1).mul(255).round().byte() for _ in range(draws)]
    drawn, axes = subplots(len(images), draws + 1, (0.85 * (draws + 1), 0.9 * len(images)), squeeze=False)
    for row, image in zip(axes, range(len(images)), strict=True):
        for place, panel in zip(row, [images, *views], strict=True):
            _show(place, panel[image])
    axes[0, 0].set_title("image", fontsize=9)
    axes[0, 1].set_title("random views", fontsize=9)
    alt = f"{len(images)} images, each beside {draws} random views of it."
    return Sketch(drawn, alt, "Unlabelled images, each beside random views of it.")


@figure
def loss_curve(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    logged: tuple[str, Logged] | None = None,
    named: bool = False,
) -> Sketch:
    """Loss per epoch with its chance level, if it has one, and beside it something else that was logged.

    Args:
        histories: run -> its epochs; a line for each.
        logged: key of the history, and what it is.
        named: whether the runs are not seeds of one another, so that each line has a colour and its name.
    """
    drawn, panels = subplots(1, 1 if logged is None else 2, (4.6 if logged is None else 7.6, 3.2), squeeze=False)
    left, right = panels[0, 0], panels[0, -1]
    key, what = logged or ("loss", Logged("loss"))
    scale = 100 if what.is_share else 1
    ends = []
    for i, (name, history) in enumerate(histories.items()):
        epochs = [h["epoch"] for h in history]
        colour = themed_colour(style_of_many(i)[0] if named else "blue")
        style: dict[str, Any] = {"color": colour, "ls": style_of_many(i)[2] if named else "-"}
        style |= {"marker": "o" if len(epochs) < 3 else None, "alpha": 1 if named else 1 - 0.6 * i / len(histories)}
        ends.append((name, epochs[-1], scale * history[-1][key], colour))
        left.plot(epochs, [h["loss"] for h in history], **style)
        if logged is not None:
            right.plot(epochs, [scale * h[key] for h in history], **style)
    chance = {h[-1]["chance_loss"] for h in histories.values() if "chance_loss" in h[-1]}
    for level in chance:
        left.axhline(level, color=themed_colour("muted"), ls="--", lw=1)
        left.annotate(f"chance: {level:.2f}", (0.98, level), (0, -4), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", va="top", color=themed_colour("muted"))  # fmt: skip
    highest = max([*chance, *(max(h["loss"] for h in history) for history in histories.values())])
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, 1.06 * highest))
    if logged is not None:
        right.set(xlabel="epoch", ylabel=f"{what.label} ({what.unit})" if what.unit else what.label)
        right.set_ylim(0, 100 if scale == 100 else None)
        right.yaxis.label.set_wrap(True)
    for axes in panels.flat:
        axes.xaxis.get_major_locator().set_params(integer=True)
    if named:
        name_lines(right, ends)
    many = f"; one line for each of {len(histories)} {'runs' if named else 'seeds'}" if len(histories) > 1 else ""
    beside = f" (left), and beside it: {what.label}," if logged else ""
    each = []
    for name, history in histories.items():
        end = f", {what.label} {scale * history[-1][key]:.3g} {what.unit}".rstrip() if logged else ""
        each.append(f"{name}: from {history[0]['loss']:.2f} to {history[-1]['loss']:.2f}{end}")
    level_said = f" Its chance level is {', '.join(f'{level:.2f}' for level in sorted(chance))}." if chance else ""
    return Sketch(
        drawn,
        f"Loss by epoch. {'; '.join(each)}.{level_said}",
        f"Loss{beside} in training{many}.",
        [{"run": name, **{k: h[k] for k in dict.fromkeys(("epoch", "loss", key, *(("chance_loss",) if chance else ())))
                          if k in h}} for name, history in histories.items() for h in history],
    )  # fmt: skip


@figure
def similarity_matrix(z: Tensor, n: int) -> Sketch:
    """Cosines between the projections (2n x D) of two views of n images: views of one image lie n off the diagonal."""
    z = torch.nn.functional.normalize(z.float(), dim=1)
    cosine = (z @ z.T).numpy()
    drawn, axes = subplots(size=(5.2, 4.4))
    colours, bar = colour_map("diverging"), {"label": "cosine similarity"}
    sns.heatmap(cosine, vmin=-1, vmax=1, cmap=colours, ax=axes, square=True, cbar_kws=bar)
    index = np.arange(2 * n)
    positives, edge = np.roll(index, n), themed_colour("ink")
    axes.scatter(index + 0.5, positives + 0.5, s=90 / n**0.5, facecolors="none", edgecolors=edge, lw=0.8)
    axes.set(xlabel="view", ylabel="anchor", xticks=[n / 2, 1.5 * n], yticks=[n / 2, 1.5 * n])
    axes.set_xticklabels(["first views", "second views"], rotation=0)
    axes.set_yticklabels(["first views", "second views"], rotation=90, va="center")
    positive = cosine[index, positives].mean()
    negative = (cosine.sum() - 2 * n - 2 * n * positive) / (2 * n * (2 * n - 2))
    return Sketch(
        drawn,
        f"Matrix of cosine similarities of {2 * n} views; positives, circled, average {positive:.2f}, "
        f"negatives {negative:.2f}.",
        f"Cosine similarity of every pair of {2 * n} views of {n} held-out images; positives are circled.",
        [{f"view_{j}": round(float(value), 4) for j, value in enumerate(row)} for row in cosine],
    )


@figure
def first_filters(before: Tensor, after: Tensor) -> Sketch:
    """The first convolution's kernels (out x in x h x w), shown by their channels' mean, before and after training."""
    n = len(after)
    columns = min(16, n)
    rows = -(-n // columns)
    drawn, axes = subplots(2 * rows, columns, (0.45 * columns, 0.95 * rows + 0.5), squeeze=False)
    for half, (title, kernels) in enumerate((("before training", before), ("after training", after))):
        pictures = kernels.mean(1).numpy()
        limit = np.abs(pictures).max()
        for i, place in enumerate(axes[half * rows : (half + 1) * rows].flat):
            place.set_axis_off()
            if i < n:
                place.imshow(pictures[i], cmap=colour_map("diverging"), vmin=-limit, vmax=limit)
        axes[half * rows, 0].set_title(title, loc="left")
    return Sketch(
        drawn,
        f"The {n} kernels of the first convolution, before and after training.",
        "Kernels of the first convolution: red positive, blue negative, each half on its own scale.",
    )


@figure
def embedding_maps(
    maps: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], wrong: np.ndarray | None = None
) -> Sketch:
    """Two-dimensional maps (N x 2) of the same images, side by side, coloured by class, classes named in place.

    wrong: bool N, the images that a probe gets wrong, which are drawn as crosses.
    """
    palette, paper = class_colours(len(classes), current_theme()), themed_colour("paper")
    names = [*classes, ""]  # the last for -1
    wrong = np.zeros(len(labels), bool) if wrong is None else wrong
    size = (3.3 * len(maps), 3.3) if len(maps) > 1 else (5.6, 5.0)
    drawn, axes = subplots(1, len(maps), size, squeeze=False)
    for place, (title, points) in zip(axes.flat, maps.items(), strict=True):
        unknown = points[labels < 0]
        place.scatter(unknown[:, 0], unknown[:, 1], s=5, color=themed_colour("blue"), alpha=0.7, lw=0)
        for c, name in enumerate(classes):
            own = points[(labels == c) & ~wrong]
            place.scatter(own[:, 0], own[:, 1], s=5, color=palette[c], alpha=0.7, lw=0)
            missed = points[(labels == c) & wrong]
            place.scatter(missed[:, 0], missed[:, 1], s=26, color=palette[c], marker="x", lw=1.4)
            if (labels == c).any():
                x, y = np.median(points[labels == c], axis=0)
                box = {"boxstyle": "round,pad=0.15", "fc": paper, "ec": palette[c], "alpha": 0.85}
                place.text(x, y, name, weight="bold", ha="center", va="center", bbox=box)
        place.set(title=title, xticks=[], yticks=[])
        place.grid(visible=False)
        place.spines[:].set_visible(True)
    crosses = f" Crosses: the {wrong.sum()} that the linear probe gets wrong." if wrong.any() else ""
    said = f": {'; '.join(maps)}" if len(maps) > 1 else ""
    return Sketch(
        drawn,
        f"Two-dimensional maps of {len(labels)} test images by t-SNE{said}.{crosses}",
        f"Features of {len(labels):,} test images, by t-SNE; the axes have no unit.{crosses}",
        [
            {"map": title, "image": i, "x": round(float(x), 3), "y": round(float(y), 3), "class": names[labels[i]]}
            for title, points in maps.items()
            for i, (x, y) in enumerate(points)
        ],
    )


@figure
def image_rows(
    images: Tensor, rows: Sequence[Sequence[int]], titles: Sequence[Sequence[str]], alt: str, caption: str
) -> Sketch:
    """Rows of images (indices into uint8 N x C x H x W), each with a short title."""
    drawn, axes = subplots(len(rows), len(rows[0]), (0.95 * len(rows[0]), 1.12 * len(rows)), squeeze=False)
    for places, row, names in zip(axes, rows, titles, strict=True):
        for place, index, name in zip(places, row, names, strict=True):
            _show(place, images[index])
            place.set_title(name, fontsize=8, loc="center", pad=2)
    numbers = [
        {"row": r, "column": c, "image": index, "title": name}
        for r, (row, names) in enumerate(zip(rows, titles, strict=True))
        for c, (index, name) in enumerate(zip(row, names, strict=True))
    ]
    return Sketch(drawn, alt, caption, numbers)
