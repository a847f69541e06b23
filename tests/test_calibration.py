import math

import numpy as np
import pytest
import torch

from contrastive.evaluation.calibration import calibration_error, fit_temperature, macro_auc


def test_calibration_error_equals_a_loop_over_bins():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (500, 4))
    labels = np.array([rng.choice(4, p=np.exp(0.5 * x) / np.exp(0.5 * x).sum()) for x in logits])  # twice too sure
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (probabilities.max(1) > low) & (probabilities.max(1) <= low + 1 / 15)
        if inside.any():
            right = (probabilities.argmax(1) == labels)[inside].mean()
            expected += 100 * inside.mean() * abs(right - probabilities.max(1)[inside].mean())
    assert calibration_error(probabilities, labels) == pytest.approx(expected)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(2, rel=0.25)
    scaled = torch.tensor(logits / temperature).softmax(1).numpy()
    assert calibration_error(scaled, labels) < 0.5 * expected
    assert calibration_error(np.eye(3), np.arange(3)) == 0


def test_temperature_is_where_cross_entropy_is_least():
    torch.manual_seed(0)
    logits = torch.randn(300, 5)
    labels, logits = (logits + torch.randn(300, 5)).argmax(1), 3 * logits
    best = fit_temperature(logits.double().numpy(), labels.numpy())
    losses = [
        torch.nn.functional.cross_entropy(logits.double() / t, labels).item() for t in (0.98 * best, best, 1.02 * best)
    ]
    assert losses[1] == min(losses)


def test_nothing_tells_a_temperature_when_all_are_right():
    logits = np.array([[2.0, 1.0], [0.0, 0.1]])
    assert fit_temperature(logits, np.array([0, 1])) == 1.0
    assert 0.1 < fit_temperature(logits, np.array([0, 0])) < 0.9


def test_macro_auc_of_known_rankings():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    assert macro_auc(probabilities, np.array([0, 0, 1, 1])) == pytest.approx(75)
    assert macro_auc(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(100)
    assert math.isnan(macro_auc(probabilities, np.zeros(4, int)))
