"""Each method that learns on digits passes the checks of health; if it collapsed it fails one that names the sign."""

import pytest
import torch

from contrastive import load_images
from contrastive.evaluation.soundness import collapse_checks, history_checks, loss_drop
from contrastive.methods import Output, swav
from contrastive.methods.base import each_size_at_once, mean_of, spread
from contrastive.methods.simsiam import SimSiam
from contrastive.settings import METHODS
from contrastive.training import train

from .trainings import begun

SHORT = dict(base_channels=4, n_images=256, batch_size=64, epochs=25, lr=2e-3, precision="float32", local_views=0)
EASY = dict(augment="crop:0.8:1+rotate:10")  # views from which these learn within so few steps
SURE = dict(lr=1e-3, momentum=0.98, teacher_temperature=0.02, teacher_temperature_end=0.02, warmup_epochs=5)
NARROW = dict(hidden_dim=256, projection_dim=128)
HEALTHY = {
    "mocov2": EASY | dict(momentum=0.98, queue_size=128),
    "mocov3": EASY,
    "simsiam": {},
    "barlow_twins": NARROW,
    "vicreg": NARROW,
    "swav": EASY | dict(local_views=2, epsilon=0.03),
    "dino": EASY | SURE,
    "supcon": {},
}
LEFT, POINT = "the loss left chance", "no collapse of the projections"


def trained(method, **parameters):
    """A method that was trained, its history, and the checks by name: whether they passed."""
    training = begun(method=method, **SHORT | parameters)
    history = train(training)
    training.method.eval()
    found = history_checks(training.method, history[-1], 64) + collapse_checks(
        training.method, load_images("digits").test
    )
    return training.method, history, {item["name"]: item["passed"] for item in found}


def test_methods_are_tried_here_or_in_test_health():
    assert HEALTHY.keys() == set(METHODS) - {"simclr", "byol", "supervised"}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_method_that_learns_passes_all_checks(name):
    method, history, checks = trained(name, **HEALTHY[name])
    assert all(checks.values()), checks
    assert POINT in checks
    assert (LEFT in checks) == (name != "simsiam")
    logged = history[-1]
    shares = [logged[key] for key, what in method.LOG.items() if what.is_share]
    assert all(0 <= share <= 1 for share in shares)
    if name not in ("mocov2", "simsiam"):  # whose first queue is of random keys; that has no levels
        assert loss_drop(logged) > loss_drop(history[0]) + 0.1


@pytest.mark.parametrize("name", ["mocov2", "supcon", "dino", "swav"])
def test_a_learning_rate_that_is_far_too_high_fails_both_checks(name):
    own = dict(queue_size=128) if name == "mocov2" else {}
    _, _, checks = trained(name, **own, lr=10, epochs=10)
    assert not checks[LEFT]
    assert not checks[POINT]


# --- Each without what keeps it from collapse ---------------------------------------------------------------------


class WithGradient(SimSiam):
    """SimSiam whose targets get a gradient, too."""

    def forward(self, batch, progress):
        z1, z2 = each_size_at_once(lambda x: self.head(self.encoder(x)), batch.views)
        loss = mean_of(-torch.cosine_similarity(self.predictor(a), b).mean() for a, b in ((z1, z2), (z2, z1)))
        return Output(loss, {"projection_std": spread(torch.cat([z1, z2]))})


def test_simsiam_collapses_without_the_stopped_gradient(monkeypatch):
    _, history, _ = trained("simsiam", **NARROW)
    monkeypatch.setitem(METHODS._entries, "collapsing", WithGradient)
    WithGradient.Parameters = SimSiam.Parameters
    _, collapsed, checks = trained("collapsing", **NARROW)
    assert not checks[POINT]
    assert collapsed[-1]["projection_std"] < 0.6 < 0.9 < history[-1]["projection_std"]
    assert collapsed[-1]["loss"] < history[-1]["loss"] - 0.1


def test_dino_without_its_centre_assigns_all_to_one_prototype():
    method, history, checks = trained("dino", centre_momentum=1, **EASY | dict(lr=5e-3))
    assert torch.equal(method.centre, torch.zeros_like(method.centre))
    assert not checks[POINT]
    assert history[-1]["in_use"] < 1.5 / method.own.n_prototypes
    assert history[-1]["certainty"] > 0.95
    assert history[-1]["loss"] < 0.1  # which looks like a success


def test_dino_with_a_teacher_that_is_not_sure_assigns_all_evenly():
    _, history, checks = trained("dino", **HEALTHY["dino"] | dict(teacher_temperature=0.3, teacher_temperature_end=0.3))
    assert not checks[POINT]
    assert not checks[LEFT]
    assert history[-1]["in_use"] > 0.95
    assert history[-1]["certainty"] < 0.05


def test_swav_without_balance_assigns_all_to_one_prototype(monkeypatch):
    monkeypatch.setattr(swav, "sinkhorn", lambda scores, epsilon: (scores.detach() / epsilon).softmax(1))
    method, history, checks = trained("swav", **EASY)
    assert not checks[POINT]
    assert history[-1]["in_use"] < 2 / method.own.n_prototypes
    assert history[-1]["loss"] < 0.1


@pytest.mark.parametrize("parameters", [dict(variance=0), dict(variance=0.01)])
def test_without_its_second_term_vicreg_has_no_level_to_leave(parameters):
    _, _, checks = trained("vicreg", **NARROW, **parameters, epochs=2)
    assert checks.get(LEFT, False) is False


@pytest.mark.parametrize("name", ["supcon", "supervised"])
def test_of_one_class_there_is_nothing_to_tell_apart(name):
    method = begun(method=name, **SHORT).method
    assert method.loss_range(64) is not None
    method.n_classes = 1
    assert method.loss_range(64) is None
