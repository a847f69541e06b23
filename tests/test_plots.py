"""Figures: legible in both themes, with the numbers that they show."""

import base64
import csv
import io
import itertools

import numpy as np
import pytest
import torch
from benchmarks.tables import measured_bars
from matplotlib.text import Text
from PIL import Image

from contrastive.methods import Logged
from contrastive.report import grid_plots, plots, result_plots
from contrastive.report.pictures import DARK, LIGHT, class_colours, figure_html
from contrastive.report.plots import loss_curve
from contrastive.report.result_plots import compared_curves, tick_labels

TOP1 = ("top1", Logged("positive is the nearest view", "% of anchors"))


def contrast(a, b):
    """WCAG 2.2's contrast ratio of two colours."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_are_seen_on_their_background(theme):
    for text in (theme.ink, theme.muted):
        assert contrast(text, theme.paper) >= 4.5
    for line in (
        theme.blue,
        theme.orange,
        theme.green,
        theme.grey,
        theme.purple,
        *class_colours(10, theme),
        *class_colours(30, theme),
    ):
        assert contrast(line, theme.paper) >= 3, line
    assert len(set(class_colours(30, theme))) == 30


def rows_of(picture):
    return list(csv.DictReader(io.StringIO(picture.as_json()["csv"])))


HISTORY = [{"epoch": i, "loss": 5.0 - i, "top1": i / 4} for i in (1, 2, 3)]


def test_a_picture_is_drawn_for_both_themes():
    picture = loss_curve({"seed 0": HISTORY}, TOP1)
    shown = picture.as_json()
    for mode, theme in (("light", LIGHT), ("dark", DARK)):
        image = Image.open(io.BytesIO(base64.b64decode(shown[mode]))).convert("RGB")
        assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((2, 2))) == theme.paper
        assert image.size == (pytest.approx(2 * shown["width"], abs=1), pytest.approx(2 * shown["height"], abs=1))
    page = figure_html(shown, shown["light"])
    assert 'media="screen and (prefers-color-scheme: dark)"' in page
    assert base64.b64decode(page.partition("data:text/csv;base64,")[2].partition('"')[0]).decode() == shown["csv"]


def test_a_loss_curve_shows_what_its_method_logs_and_chance_where_it_is_defined():
    known = [{**epoch, "chance_loss": 6.25, "lowest_loss": 1.0} for epoch in HISTORY]
    picture = loss_curve({"seed 0": known}, TOP1)
    assert picture.alt == (
        "Loss by epoch. seed 0: from 4.00 to 2.00, positive is the nearest view 75 % of anchors. "
        "Its chance level is 6.25."
    )
    assert [(float(row["loss"]), float(row["top1"]), row["chance_loss"]) for row in rows_of(picture)] == [
        (4.0, 0.25, "6.25"), (3.0, 0.5, "6.25"), (2.0, 0.75, "6.25"),
    ]  # fmt: skip
    left, right = picture.light.figure.axes
    assert right.get_ylabel() == "positive is the nearest view (% of anchors)"
    assert [text.get_text() for text in left.texts] == ["chance: 6.25"]
    assert left.get_ylim()[1] > 6.25


def test_a_loss_curve_of_another_method_says_nothing_of_chance():
    history = [{"epoch": i, "loss": 2.0 - i, "spread": 0.5 + i / 4} for i in (0, 1)]
    picture = loss_curve({"seed 0": history, "seed 1": history}, ("spread", Logged("spread of the targets")))
    assert not {"chance_loss", "top1"} & set(rows_of(picture)[0])
    assert "chance" not in picture.alt + picture.light.caption
    assert "spread of the targets 0.75" in picture.alt
    left, right = picture.light.figure.axes
    assert not left.texts
    assert right.get_ylabel() == "spread of the targets"
    assert right.get_ylim()[1] < 2  # no percent
    alone = loss_curve({"seed 0": history})
    assert len(alone.light.figure.axes) == 1
    assert set(rows_of(alone)[0]) == {"run", "epoch", "loss"}


def points(budgets, percent=90.0):
    """With each number of labels the same mean and interval."""
    return [(n, {"mean": percent, "low": percent - 1, "high": percent + 0.5}) for n in budgets]


def test_reports_beside_each_other_have_their_own_looks_and_the_numbers_that_went_in():
    picture = compared_curves({"a": points((100, 600), 70.0), "b": points((100,), 60.0)}, "balanced_accuracy", "mnist")
    rows = [[row[name] for name in ("what", "labels", "percent", "low", "high")] for row in rows_of(picture)]
    assert rows == [
        ["a", "100", "70.0", "69.0", "70.5"], ["a", "600", "70.0", "69.0", "70.5"], ["b", "100", "60.0", "59.0", "60.5"]
    ]  # fmt: skip
    axes = picture.light.figure.axes[0]
    assert axes.get_ylabel() == "balanced accuracy (%)"
    one, other = (bars.lines[0] for bars in axes.containers)
    assert one.get_color() != other.get_color()
    assert one.get_marker() != other.get_marker()
    assert "dotted" not in picture.light.caption  # what guessing gets is not known


def test_names_of_lines_keep_clear_of_each_other():
    close = {f"line {i}": points((100, 1000), 95.0) for i in range(6)}
    figure = compared_curves(close, "accuracy", "mnist").light.figure
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without their leaders
    assert len(boxes) == 6
    for a, b in itertools.combinations(boxes, 2):
        assert not a.overlaps(b)
    assert all(figure.bbox.contains(box.x1, box.y1) and figure.bbox.contains(box.x1, box.y0) for box in boxes)
    low, high = figure.axes[0].bbox.intervaly  # beside the axes, though all the lines end at their lower edge
    assert all(low - 5 < (box.y0 + box.y1) / 2 < high + 5 for box in boxes)


def test_every_figure_has_words_for_those_who_cannot_see_it():
    points, labels = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    pictures = [
        plots.embedding_maps({"": points}, labels, ["cat", "dog"], labels == 1),
        result_plots.confusion(np.array([[8, 2], [0, 9]]), ["cat", "dog"]),
        grid_plots.grid_dots(
            {"base": {0: 90.0, 1: 91.0}, "without crop": {0: 80.0}}, 500, {"base": 3.0, "without crop": 2.0}
        ),
        plots.similarity_matrix(torch.randn(8, 4), 4),
        plots.first_filters(torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3)),
        measured_bars({"ours": {"median": 2.0, "min": 1.0, "max": 3.0}}, "pretraining speed, images/s"),
    ]
    for picture in pictures:
        assert len(picture.alt) > 30
        assert picture.light.caption
        assert picture.light.alt == picture.dark.alt
    assert "cat taken for dog, 2 times" in pictures[1].alt
    assert "without crop 80.00 %" in pictures[2].alt


def test_lines_of_a_grid_show_means_and_intervals():
    points = [(t, "yes", {0: 90.0 + t, 1: 92.0 + t}) for t in (0.1, 1.0)] + [(1.0, "no", {0: 80.0})]
    picture = grid_plots.grid_lines(points, "temperature", "l2_normalize", 500, [3.0] * 3)
    axes = picture.light.figure.axes[0]
    assert axes.get_xscale() == "log"
    lines = {
        tuple(np.round(np.asarray(line.get_ydata(), float), 3).tolist())
        for line in axes.lines
        if len(line.get_xdata()) in (1, 2)
    }
    assert {(91.1, 92.0), (80.0,)} <= lines
    rows = rows_of(picture)
    assert [float(r["validation_accuracy_percent"]) for r in rows] == [90.1, 92.1, 91.0, 93.0, 80.0]
    kinds = grid_plots.grid_lines(
        [("none", "", {0: 1.0, 1: 2.0}), ("mlp", "", {0: 3.0, 1: 4.0})], "head", "", 500, [1.0, 1.0]
    ).light.figure
    assert [label.get_text() for label in kinds.axes[0].get_xticklabels()] == ["none", "mlp"]


def test_bars_of_a_grid_overlap_unless_points_differ_by_more_than_noise():
    half = {"one": 1.0, "other": 1.5}
    picture = grid_plots.grid_dots(
        {"one": {0: 90.0, 1: 91.0}, "other": {0: 95.0}}, 500, {k: 2 * v for k, v in half.items()}
    )
    drawn = [c.lines[2][0].get_segments()[0][:, 0] for c in picture.light.figure.axes[0].containers]
    assert [segment.tolist() for segment in drawn] == [[89.5, 91.5], [93.5, 96.5]]
    points = [(0.1, "", {0: 90.0}), (1.0, "", {0: 92.0})]
    lines = grid_plots.grid_lines(points, "temperature", "", 500, [3.0, 1.0]).light.figure.axes[0].containers[0]
    assert [segment[:, 1].tolist() for segment in lines.lines[2][0].get_segments()] == [[88.5, 91.5], [91.5, 92.5]]


def test_a_heat_map_has_every_combination_and_leaves_the_others_empty():
    points = [
        ("crop", "crop", {0: 90.0, 1: 92.0}),
        ("blur", "crop", {0: 95.0, 1: 96.0}),
        ("blur", "blur", {0: 80.0, 1: 82.0}),
    ]
    picture = grid_plots.grid_heatmap(points, "one", "other", 500, 1.25)
    assert "the best is blur with crop, 95.50 %" in picture.alt
    assert "Two that differ by 1.25 points or more" in picture.light.caption
    shown = picture.light.figure.axes[0].collections[0].get_array()
    assert np.ma.filled(np.ma.masked_invalid(shown).reshape(2, 2), -1).tolist() == [[91.0, 95.5], [-1.0, 81.0]]


def test_corruptions_are_shown_from_the_hardest():
    def of(value, std=0.0):
        return {"mean": value, "std": std, "n_seeds": 2, "values": [value, value]}

    metrics = {
        f"{arm}_accuracy[{name}]": of(value + bonus, 0.5)
        for arm, bonus in (("linear", 1.0), ("supervised", 0.0))
        for name, value in (("stripe", 60.0), ("shear", 90.0), ("corrupted", 75.0), ("transfer", 99.0))
    }
    picture = result_plots.robustness(metrics, ("linear", "supervised"))
    assert "2 kinds of corrupted" in picture.alt
    assert "the hardest is stripe, 61.0 %" in picture.alt
    assert [label.get_text() for label in picture.light.figure.axes[0].get_yticklabels()] == ["stripe", "shear"]


def test_a_confusion_matrix_without_mistakes_says_so():
    assert "no mistakes" in result_plots.confusion(np.diag([3, 4]), ["a", "b"]).alt
    many = result_plots.confusion(np.full((60, 60), 2), [f"class {i}" for i in range(60)]).light.figure
    assert len(many.axes[0].texts) == 0
    assert len(many.axes[0].get_xticklabels()) == 20


def test_photographs_keep_their_colours():
    ramp = torch.linspace(0, 255, 64).byte()
    image = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, 255 - ramp.expand(64, 64)])
    shown = plots.image_rows(image[None], [[0]], [["a"]], "a ramp of many colours", "One.").as_json()
    drawn = np.array(Image.open(io.BytesIO(base64.b64decode(shown["light"]))).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) > 1000


@pytest.mark.parametrize(
    "budgets",
    [
        (10, 50, 100, 600, 1000, 5000, 6000, 30_000, 60_000),
        (4, 10, 20, 40, 100, 200, 400, 1000, 2616, 5232),
        (100, 5000),
        (7,),
    ],
)
def test_numbers_of_labels_do_not_run_into_each_other(budgets):
    drawn = compared_curves({"a": points(budgets)}, "accuracy", "mnist").light.figure
    ticks = drawn.axes[0].get_xticklabels()
    drawn.canvas.draw()
    boxes = [tick.get_window_extent() for tick in ticks if tick.get_text()]
    assert len(ticks) == len(budgets)
    assert ticks[0].get_text()
    assert not any(left.overlaps(right) for left, right in itertools.pairwise(boxes))
    assert tick_labels((4, 200, 1000, 2616, 5232)) == ["4", "200", "1k", "2.6k", "5.2k"]


def test_runs_that_logged_different_things_share_a_table():
    short, long = [{"epoch": 1, "loss": 2.0}], [{"epoch": 1, "loss": 3.0, "chance_loss": 5.0}]
    for histories in ({"a": short, "b": long}, {"b": long, "a": short}):
        rows = rows_of(loss_curve(histories, named=True))
        assert {row["run"]: row["chance_loss"] for row in rows} == {"a": "", "b": "5.0"}
