"""What tells a collapse: of BYOL without what keeps it from it, and of SimCLR at a rate that is far too high."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contrastive import Settings, load_images, pretrain
from contrastive.data import Copy, copied
from contrastive.evaluation import health, loss_drop, soundness
from contrastive.evaluation.soundness import collapse_checks, history_checks
from contrastive.methods import Logged, Output
from contrastive.methods.byol import BYOL
from contrastive.methods.simclr import SimCLR
from contrastive.settings import METHODS

from .few_images import images_of
from .trainings import begun

SHORT = dict(preset="smoke", batch_size=64, precision="float32")


class Collapsing(BYOL):
    """BYOL without its predictor, and with a gradient through both sides: that all is alike is its best answer."""

    def __init__(self, *args):
        super().__init__(*args)
        self.predictor = nn.Identity()

    def forward(self, batch, progress):
        z1, z2 = self.head(self.encoder(torch.cat(batch.views))).chunk(2)
        return Output(2 - 2 * F.cosine_similarity(z1, z2).mean(), {"target_std": z1.detach().std()})


def checked(**parameters):
    """The checks of a run, by name: whether they passed."""
    run = pretrain(Settings(**SHORT, **parameters), progress=False)
    found = health(run, load_images("digits").test)
    assert all(item["name"].endswith("(seed 0)") and item["seen"] and item["expected"] for item in found)
    return {item["name"].removesuffix(" (seed 0)"): item["passed"] for item in found}


def test_byol_collapses_without_stop_gradient_and_predictor_and_it_is_told(monkeypatch):
    monkeypatch.setitem(METHODS._entries, "collapsing", Collapsing)
    collapsed = checked(method="collapsing")
    assert not collapsed["no collapse of the projections"]
    sound = checked(method="byol")
    assert sound == {"no collapse of the features": True, "no collapse of the projections": True}
    assert sound.keys() == collapsed.keys()  # no check of a loss that has no chance level


def test_what_simclr_learned_is_told_from_what_it_did_not():
    sound = checked(method="simclr")
    assert all(sound.values())
    assert {"the loss left chance", SimCLR.LOG["top1"].label} <= sound.keys()
    diverged = checked(method="simclr", lr=10)
    assert not diverged["the loss left chance"]
    assert not diverged["no collapse of the projections"]


def test_supervised_features_are_checked_as_well_and_its_loss_starts_at_the_classes():
    checks = checked(method="supervised", epochs=3)
    assert checks["the loss left chance"]
    assert set(checks) == {"the loss left chance", "no collapse of the features"}


def test_checks_follow_what_a_method_logs():
    method = begun(base_channels=2).method
    last = {"loss": 4.0, "chance_loss": 5.0, "lowest_loss": 1.0, "top1": 0.5}
    assert loss_drop(last) == pytest.approx(0.25)
    assert loss_drop({"loss": 1.0}) is None
    assert [item["passed"] for item in history_checks(method, last, 128)] == [True, True]
    assert [item["passed"] for item in history_checks(method, last | {"top1": 9 / 255}, 128)] == [True, False]
    assert [item["passed"] for item in history_checks(method, last | {"loss": 4.7}, 128)] == [False, True]
    method.LOG = {"top1": Logged("no chance level"), "other": Logged("a tenth by chance", "%", lambda n: 0.1)}
    names = [item["name"] for item in history_checks(method, {"loss": 1.0, "other": 0.6}, 128)]
    assert names == ["a tenth by chance"]


class Made(nn.Module):
    """In place of a method, features that are given."""

    def __init__(self, encoder, features):
        super().__init__()
        self.encoder, self.features = encoder, features

    def representations(self, h):
        return {"h": self.features, "z": self.features}


def test_both_a_point_and_a_few_dimensions_are_a_collapse():
    encoder, images = begun(base_channels=2).method.encoder.eval(), load_images("digits").test
    torch.manual_seed(0)
    noise, line = torch.randn(360, 64), torch.randn(360, 1) * F.one_hot(torch.tensor([3]), 64)
    point = F.one_hot(torch.tensor([5]), 64)
    for features, sound in (
        (noise, True),  # all over the sphere
        (point + 0.01 * noise, False),  # about one point, in all dimensions
        (line + 0.01 * point, False),  # far apart, on a line
    ):
        found = collapse_checks(Made(encoder, features), images)
        assert [item["passed"] for item in found] == [sound] * 2, found
    # Features of many dimensions may lie as close as ReLU puts them, projections may not
    assert [item["passed"] for item in collapse_checks(Made(encoder, point + 0.02 * noise), images)] == [True, False]


def test_of_a_handful_of_images_no_collapse_can_be_told():
    method, images = begun(base_channels=2).method, load_images("digits").test
    assert [item["name"] for item in collapse_checks(method, images[:8])] == [
        "no collapse of the features", "no collapse of the projections",
    ]  # fmt: skip
    for n in (7, 1, 0):
        assert collapse_checks(method, images[:n]) == []


@pytest.mark.parametrize(
    ("n_near", "n_exact", "straddling", "failed"),
    [
        (0, 1, 0, None), (4, 1, 0, None), (5, 1, 0, "copies"), (6, 0, 0, "copies"), (0, 2, 0, "copies"),
        (0, 0, 1, "group"),
    ],
)  # fmt: skip
def test_copies_and_groups_on_both_sides_fail_a_check(monkeypatch, n_near, n_exact, straddling, failed):
    images = dataclasses.replace(images_of(groups=range(60)), straddling=straddling)
    images = dataclasses.replace(images, test=images.test.repeat(30, 1, 1, 1)[:1100])
    near = [Copy(i, 60 + i, False, 0.9, False) for i in range(n_near)]
    exact = [Copy(i, 460 + i, True, 1.0, False) for i in range(n_exact)]
    of_one = near[:1] and [Copy(50, 60, False, 0.9, False)]  # a second copy of the same test image
    within = [Copy(1, 2, True, 1.0, False), Copy(700, 701, True, 1.0, False)]
    monkeypatch.setattr(copied, "copies_of", lambda images: [*near, *exact, *of_one, *within])
    checks = soundness.data_checks(images)
    assert [failed in item["name"] for item in checks if not item["passed"]] == ([True] if failed else [])
    assert checks[0]["seen"] == f"{n_near + n_exact}, {n_exact} of them exact"
    assert checks[0]["expected"].startswith("at most 5 of 1,100, 1 exact;")
    assert checks[1]["seen"] == f"{straddling} have both"
    # Of data without groups there is nothing to say
    assert len(soundness.data_checks(dataclasses.replace(images, groups=images.groups[:0]))) == 1


def test_copies_that_were_made_are_found_by_the_check():
    digits = load_images("digits")
    test = digits.test.clone()
    test[:5] = digits.train[10:15]
    images = dataclasses.replace(digits, test=test, sha256="of digits with five copies")
    (found,) = soundness.data_checks(images)
    assert not found["passed"]
    assert found["seen"].endswith(", 5 of them exact")
