import pytest

from contrastive import Settings
from contrastive.sweep import BASE, ablation_base, ablation_points, finding, measure, noise

SMOKE = Settings(preset="smoke", ablation_width=2)


def test_each_point_differs_from_the_base_in_one_value():
    base = ablation_base(SMOKE)
    groups = ablation_points(base)
    assert set(groups) == {"temperature", "augmentation", "head"}
    assert base.augment == "simclr"
    for points in groups.values():
        assert points[BASE] == base
        for name, settings in points.items():
            changed = [field for field, value in settings if value != getattr(base, field)]
            assert len(changed) == (0 if name == BASE else 1), name
    assert set(groups["augmentation"]) == {BASE} | {
        f"without {op}" for op in ("hflip", "crop", "jitter", "blur", "grayscale")
    }
    assert set(groups["head"]) == {BASE, "head none", "head linear"}


def test_points_are_measured_once_and_kept(fresh_runs, monkeypatch):
    from contrastive import sweep

    base = ablation_base(SMOKE)
    points = {BASE: base, "head none": base.but(head="none")}
    values, code_changed = measure(points, 1, 100, progress=False)
    assert [len(v) for v in values.values()] == [3, 1]
    assert not code_changed
    assert len(list(fresh_runs.glob("*/encoder.safetensors"))) == 4
    monkeypatch.setattr(sweep, "validation_accuracy", None)  # nothing is measured again
    assert measure(points, 1, 100, progress=False)[0] == values


def test_noise_comes_from_seeds_but_is_never_less_than_the_images_give():
    # Spread over seeds of 2 points, three of the base against one; t of 2 degrees of freedom at 97.5 % is 4.303.
    assert noise({BASE: [88.0, 90.0, 92.0], "x": [91.0]}, 10**9) == pytest.approx(4.3027 * 2 * (4 / 3) ** 0.5, rel=1e-4)
    # Seeds that agree by luck: 90 % of 100 images have a standard error of 3 points.
    assert noise({BASE: [90.0, 90.0], "x": [91.0, 91.0]}, 100) == pytest.approx(4.3027 * 3.0, rel=1e-4)


def test_findings_call_noise_noise():
    values = {BASE: [90.0, 90.0], "a": [93.0], "b": [90.5]}
    said = finding(values, 2.0)
    assert "more than noise: a +3.00 points" in said
    assert "Within noise (95 %: ±2.00 points): b (+0.50)" in said
    assert finding(values, 10.0).startswith("No point differs from the base's 90.00 %")
