"""Features made ready for linear probes: that they say the same, of each set of images by itself."""

import math

import numpy as np
import pytest
import torch

from contrastive.evaluation.probe_features import centre, prepare, span, unit_length
from contrastive.settings import RunError


def features(n, width):
    """Features of different spread."""
    rng = np.random.default_rng(width)
    return torch.from_numpy(rng.normal(1, 1, (n, width)) * np.geomspace(2, 0.1, width)).float()


@pytest.mark.parametrize(("n", "width"), [(12, 30), (40, 8)])
def test_coordinates_in_the_span_are_as_good_as_the_features(n, width):
    x = features(n, width)
    x = torch.cat([x, torch.ones(n, 1)], 1)[None]
    x = torch.cat([x, torch.zeros(1, 3, width + 1)], 1)  # rows that only fill up
    z, spread, axes = span(x, torch.tensor([n]))
    own = x[0, :, :-1].double()
    torch.testing.assert_close(z[0, :, :-1].double() @ z[0, :, :-1].double().T, own @ own.T, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(z[0, :, :-1] @ axes[0], x[0, :, :-1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(spread[0, :-1], z[0, :, :-1].square().sum(0) / n, atol=1e-4, rtol=1e-3)
    assert torch.equal(z[0, :, -1], x[0, :, -1])


def test_features_made_ready_say_the_same():
    a, b, index = features(50, 8), features(50, 5), torch.arange(50).flip(0)[:40]
    ready = prepare([a, b], index)
    x = torch.cat([unit_length(a), unit_length(b)], 1)[index]
    torch.testing.assert_close(ready[:, :-1], x, atol=1e-6, rtol=1e-6)
    assert (ready[:, -1] == 1).all()
    sets, here = torch.stack([ready, ready]), torch.ones(2, 40, dtype=torch.bool)
    here[1, 25:] = False
    mean = centre(sets, here)
    for own, of_set, n in zip(sets, mean, (40, 25), strict=True):
        torch.testing.assert_close(of_set, x[:n].mean(0), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(own[:n, :-1] + of_set, x[:n], atol=1e-5, rtol=1e-5)
        assert (own[:n, -1] == 1).all()
        assert not own[n:].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_no_numbers_are_refused(bad):
    a = features(50, 8)
    a[3, 2] = bad
    assert prepare([a], torch.arange(4, 50)).isfinite().all()
    with pytest.raises(RunError, match=r"the features of 1 of 50 images are no finite numbers"):
        prepare([a], torch.arange(50))
