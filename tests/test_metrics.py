"""Names and tables of what is measured, and the arms that are compared."""

import json
import re
from pathlib import Path

import pytest

from contrastive.evaluation import ARMS, METRICS, SCRATCH, Key, aggregate, as_table, format_metric
from contrastive.evaluation.arms import with_role
from contrastive.evaluation.metrics import Row
from contrastive.evaluation.statistics import standard_error, summary

PUBLISHED = sorted((Path(__file__).parents[1] / "reports" / "published").glob("*/results.json"))
WITHOUT_ARM = ("", "knn", "majority_class", "untrained")
THEME = {"blue", "orange", "green", "grey", "purple"}


def published_names():
    """Every name of a number in the published reports."""
    return sorted({name for path in PUBLISHED for name in json.loads(path.read_text())["metrics"]})


def test_names_of_all_published_numbers_can_be_read_and_written():
    names = published_names()
    assert len(names) > 50
    for name in names:
        key = Key.parse(name)
        assert str(key) == name
        assert key.metric in METRICS, name
        assert key.arm in {*ARMS, *WITHOUT_ARM}, name
        assert key.kind is METRICS[key.metric]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("linear_accuracy@600", Key("accuracy", "linear", 600)),
        ("supervised_plain_accuracy@60000", Key("accuracy", "supervised_plain", 60000)),
        ("linear_accuracy[shear]", Key("accuracy", "linear", subset="shear")),
        ("linear_accuracy@600[shear]", Key("accuracy", "linear", 600, "shear")),
        ("knn_accuracy_k10", Key("accuracy_k10", "knn")),
        ("effective_rank_z", Key("effective_rank_z")),
        ("effective_rank", Key("effective_rank")),
        ("calibration_error_scaled@30000", Key("calibration_error_scaled", labels=30000)),
        ("calibration_error@30000", Key("calibration_error", labels=30000)),
        ("validation_accuracy", Key("validation_accuracy")),
    ],
)
def test_a_key_is_its_text(text, key):
    assert Key.parse(text) == key
    assert str(key) == text


@pytest.mark.parametrize("text", ["", "of no kind", "a@b", "@5", "x[", "<b>"])
def test_names_that_nobody_knows_are_percent_or_refused(text):
    try:
        key = Key.parse(text)
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017
    else:
        assert str(key) == text
        assert (key.kind.unit, key.kind.spread) == ("%", "share")


def test_numbers_are_aggregated_over_draws_and_then_over_seeds():
    values = {(0, 0): 50.0, (0, 1): 70.0, (1, 0): 80.0}
    rows = [Row("linear", "accuracy", 100, "", seed, draw, value) for (seed, draw), value in values.items()]
    rows += [Row("", "effective_rank", None, "", seed, 0, 10.0 + seed) for seed in (0, 1)]
    found = aggregate(rows)
    assert found == {"linear_accuracy@100": summary([60.0, 80.0]), "effective_rank": summary([10.0, 11.0])}
    assert found["linear_accuracy@100"]["values"] == [60.0, 80.0]  # and not the mean of three
    table = as_table(rows)
    assert table["columns"] == ["arm", "metric", "labels", "subset", "seed", "draw", "value"]
    assert table["rows"][0] == ["linear", "accuracy", 100, "", 0, 0, 50.0]
    assert [Row(*row) for row in json.loads(json.dumps(table))["rows"]] == rows


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("linear_accuracy@100", [97.123], "97.12 %"),
        ("linear_accuracy@100", [97.0, 98.0], "97.50 ± 0.71 %"),
        ("effective_rank_z", [31.26], "31.3 dimensions"),
        ("uniformity", [-2.71828], "-2.718"),
        ("of no kind", [1234.5], "1,234.50 %"),
    ],
)
def test_numbers_are_told_with_their_spread_and_unit(name, values, text):
    assert format_metric(name, summary(values)) == text
    assert format_metric(Key.parse(name), summary(values)) == text


def test_means_spreads_and_errors():
    assert summary([1.0, 2.0, 3.0]) == {"mean": 2.0, "std": 1.0, "n_seeds": 3, "values": [1.0, 2.0, 3.0]}
    assert summary([5.0])["std"] == 0.0
    assert standard_error(90.0, 10_000) == pytest.approx(0.3)
    assert standard_error(100.0, 100) > 0


def test_every_metric_says_how_it_is_read():
    for metric in METRICS.values():
        assert metric.spread in ("share", "steps", "relative")
        assert metric.decimals in (1, 2, 3)
    assert METRICS["accuracy"].higher_is_better is True
    assert METRICS["calibration_error"].higher_is_better is False


# --- Arms ---------------------------------------------------------------------------------------------------------


def test_every_arm_has_a_colour_of_the_theme_and_a_look_of_its_own():
    assert {arm.colour for arm in ARMS.values()} <= THEME
    looks = [(arm.colour, arm.marker) for arm in ARMS.values()]
    assert len(looks) == len(set(looks))
    for label in ("name", "whom"):
        assert len({getattr(arm, label) for arm in ARMS.values()}) == len(ARMS)


def test_every_arm_says_how_it_is_built():
    for name, arm in ARMS.items():
        assert arm.id == name
        assert re.fullmatch("[a-z_]+", name)
        assert Key.parse(f"{name}_accuracy@10") == Key("accuracy", name, 10)
        assert sum(how is not None for how in (arm.features, arm.labels, arm.joined)) == 1
        assert all(ARMS[block].features is not None for block in arm.joined or ())
    assert {*SCRATCH, *with_role("control"), "linear"} <= set(ARMS)
    assert all(ARMS[name].labels is not None for name in SCRATCH)
