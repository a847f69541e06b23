"""The figure that leads a linear evaluation: every arm's metric by number of labels, with 95 % intervals."""

import csv
import io

import numpy as np
import pytest

from contrastive.evaluation import ARMS
from contrastive.report.pictures import LIGHT
from contrastive.report.result_plots import NEARLY_ALL, budget_curves

from .made_up import findings, some_right

N = 200
SHARES = {"linear": (0.6, 0.8), "general": (0.5, 0.85), "supervised": (0.3, 0.7), "supervised_plain": (0.35, 0.65)}


def found(shares=None, n_classes=4):
    right = {
        arm: {n: some_right(N, share) for n, share in zip((100, 1000), own, strict=False)}
        for arm, own in (shares or SHARES).items()
    }
    return findings(right, np.arange(N) % n_classes, 1000)


def axes_of(picture):
    return picture.light.figure.axes[0]


def segments(axes):
    """Both ends of each bar, of each line."""
    return [[segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()] for bars in axes.containers]


def test_lines_and_bars_are_means_and_intervals():
    f = found()
    picture = budget_curves(f, f.measured(), "mnist")
    axes = axes_of(picture)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_ylabel() == "accuracy (%)"
    for arm, bars, ends in zip(f.measured(), axes.containers, segments(axes), strict=True):
        values = [f.percent(arm, n) for n in (100, 1000)]
        assert bars.lines[0].get_ydata() == pytest.approx([value["mean"] for value in values])
        for end, value in zip(ends, values, strict=True):
            assert end == pytest.approx([value["low"], value["high"]])
    (guess,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert set(guess.get_ydata()) == {25.0}
    assert picture.light.caption.endswith(
        "higher is better; dotted: always guessing the most frequent class. Bars: 95 % intervals."
    )


def test_the_numbers_behind_it_are_those_that_were_found():
    f = found()
    shown = budget_curves(f, f.measured(), "mnist").as_json()
    rows = list(csv.DictReader(io.StringIO(shown["csv"])))
    assert {(row["what"], int(row["labels"])) for row in rows} == {
        (ARMS[arm].name, n) for arm in SHARES for n in (100, 1000)
    }
    for row in rows:
        (arm,) = [arm for arm in SHARES if ARMS[arm].name == row["what"]]
        own = f.percent(arm, int(row["labels"]))
        assert float(row["percent"]) == pytest.approx(own["mean"])
        assert [float(row[end]) for end in ("low", "high")] == pytest.approx([own["low"], own["high"]])


def test_where_nearly_all_is_right_it_shows_errors_by_factors():
    f = found({"linear": (0.85, 0.99), "supervised": (0.5, 0.9)})
    picture = budget_curves(f, f.measured(), "mnist")
    axes = axes_of(picture)
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "error on mnist (%)"
    values = [f.percent("linear", n) for n in (100, 1000)]
    assert axes.containers[0].lines[0].get_ydata() == pytest.approx([100 - value["mean"] for value in values])
    (low, high), *_ = segments(axes)[0]
    assert high == pytest.approx(100 - values[0]["low"])
    assert low == pytest.approx(100 - values[0]["high"])
    assert all(low > 0 for ends in segments(axes) for low, _ in ends)  # a logarithmic axis has no place for 0
    assert "lower is better" in picture.light.caption
    assert "with 100 labels, 99.0 % with 1,000" in picture.alt
    assert axes_of(budget_curves(found({"linear": (0.5, NEARLY_ALL / 100)}), ["linear"], "x")).get_yscale() == "linear"


def test_no_error_at_all_can_be_drawn():
    axes = axes_of(budget_curves(found({"linear": (0.9, 1.0)}), ["linear"], "mnist"))
    assert min(axes.containers[0].lines[0].get_ydata()) == pytest.approx(0.01)
    assert all(low > 0 for ends in segments(axes) for low, _ in ends)


def test_of_two_classes_it_shows_balanced_accuracy():
    f = found(n_classes=2)
    picture = budget_curves(f, f.measured(), "mnist")
    assert axes_of(picture).get_ylabel() == "balanced accuracy (%)"
    assert picture.alt.startswith("Balanced accuracy against the number of labels. ")
    error = budget_curves(found({"linear": (0.5, 0.99)}, n_classes=2), ["linear"], "mnist")
    assert axes_of(error).get_ylabel() == "balanced error on mnist (%)"


def test_arms_keep_their_look_and_networks_from_scratch_are_told_apart():
    f = found()
    axes = axes_of(budget_curves(f, f.measured(), "mnist"))
    looks = {arm: bars.lines[0] for arm, bars in zip(f.measured(), axes.containers, strict=True)}
    assert looks["general"].get_color() == LIGHT.purple
    assert looks["linear"].get_color() == LIGHT.blue
    assert looks["supervised"].get_color() == looks["supervised_plain"].get_color()
    assert [looks[arm].get_linestyle() for arm in ("supervised", "supervised_plain")] == ["-", "--"]
    assert looks["supervised"].get_marker() != looks["supervised_plain"].get_marker()


def test_an_arm_that_was_measured_with_fewer_labels_has_fewer_points():
    f = found({**SHARES, "general_own": (0.7,)})
    axes = axes_of(budget_curves(f, f.measured(), "mnist"))
    lengths = {arm: len(bars.lines[0].get_xdata()) for arm, bars in zip(f.measured(), axes.containers, strict=True)}
    assert lengths == {**dict.fromkeys(SHARES, 2), "general_own": 1}
    assert len(axes.get_xticklabels()) == 2
