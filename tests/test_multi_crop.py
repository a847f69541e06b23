"""Small views beside the two large ones: how many and how large, who sees them, what they are compared with."""

import json

import pytest
import torch

from contrastive import Settings, UserError, load_images, resolve
from contrastive.__main__ import main
from contrastive.methods import Batch, Method, Progress
from contrastive.methods.base import across, each_size_at_once, pairs
from contrastive.settings import METHODS
from contrastive.training import loop

from .trainings import begun, take_steps

FEW = dict(base_channels=2, n_images=64, batch_size=16, epochs=2)
LOCAL = dict(pool="avg", local_views=3, local_view_size=16)
NAMES = tuple(name for name in METHODS if name != "supervised")
SLOW = {"mocov2": "key_encoder", "mocov3": "key_encoder", "byol": "target_encoder", "dino": "teacher_encoder"}


def resolved(**parameters):
    return resolve(Settings(preset="smoke", **FEW | parameters))[0]


def batch_of(training, n=16):
    views = training.make_views(training.data[:n], torch.Generator().manual_seed(0))
    return Batch(views, None if training.labels is None else training.labels[:n])


def watched(module):
    """The list to which the number and the side of what a module sees will be added."""
    seen = []
    module.register_forward_hook(lambda module, args, out: seen.append((len(args[0]), args[0].shape[-1])))
    return seen


# --- What is compared with what -----------------------------------------------------------------------------------


def test_each_small_view_is_compared_with_both_large_ones_and_with_no_small_one():
    assert pairs(["A", "B"]) == [("A", "B")]
    assert set(map(frozenset, pairs(["A", "B", "c", "d"]))) == {frozenset(x) for x in ("AB", "Ac", "Bc", "Ad", "Bd")}
    assert len(pairs(["A", "B", "c", "d"])) == 5
    assert sorted(across(["A", "B"], ["a'", "b'"])) == [("A", "b'"), ("B", "a'")]
    found = [("A", "b'"), ("B", "a'"), ("c", "a'"), ("c", "b'"), ("d", "a'"), ("d", "b'")]
    assert across(["A", "B", "c", "d"], ["a'", "b'"]) == found


def test_views_of_a_size_go_through_a_network_together_and_come_back_in_order():
    calls, views = [], [torch.full((2, 1, side, side), float(i)) for i, side in enumerate((8, 8, 4, 4, 4, 8))]

    def network(x):
        calls.append(tuple(x.shape))
        return x.flatten(1)[:, :1] * 10

    found = each_size_at_once(network, views)
    assert calls == [(4, 1, 8, 8), (6, 1, 4, 4), (2, 1, 8, 8)]
    assert [x.flatten().tolist() for x in found] == [[10.0 * i] * 2 for i in range(6)]


@pytest.mark.parametrize("name", NAMES)
def test_all_views_are_seen_and_small_ones_have_batch_statistics_of_their_own(name):
    training = begun(method=name, **FEW, **LOCAL)
    seen = watched(training.method.encoder)
    method = training.method
    output = method(batch_of(training), Progress(0, 8))
    assert seen == ([(16, 28), (48, 16)] if name == "mocov2" else [(32, 28), (48, 16)])
    assert output.log.keys() == method.LOG.keys()
    before = output.loss.item()
    views = batch_of(training).views
    for i in range(5):  # each counts
        others = [view.flip(0) if j == i else view for j, view in enumerate(views)]
        changed = method(Batch(others, batch_of(training).labels), Progress(0, 8)).loss.item()
        assert abs(changed - before) > 1e-6, i


@pytest.mark.parametrize("name", SLOW)
def test_a_network_that_follows_sees_large_views_only(name):
    training = begun(method=name, **FEW, **LOCAL)
    seen = watched(getattr(training.method, SLOW[name]))
    take_steps(training, 2)
    assert seen == [(16 if name == "mocov2" else 32, 28)] * 2


@pytest.mark.parametrize("name", NAMES)
def test_what_is_logged_is_of_large_views(name):
    """So that runs with and without small views can be compared, but for SupCon, which has them all in one."""
    logs = []
    for local in (LOCAL, LOCAL | dict(local_views=0)):
        training = begun(method=name, precision="float32", **FEW | local)
        views = batch_of(training)
        logs.append(training.method(Batch(views.views[:5], views.labels), Progress(0, 8)).log)
    for key, value in logs[0].items():
        same = torch.allclose(value, logs[1][key], rtol=1e-4)
        assert same == (name != "supcon"), key


# --- How many, how large, by which policy -------------------------------------------------------------------------


def test_a_method_says_how_many_it_usually_has():
    usual = {name: resolved(method=name).views.local_views for name in METHODS}
    assert {name: n for name, n in usual.items() if n} == {"swav": 6, "dino": 6}
    for name in NAMES:
        assert METHODS[name].MULTI_CROP
        own = resolved(method=name, local_views=2, pool="avg").views
        assert (own.local_views, own.local_view_size) == (2, 16)  # the least that the network takes, above a half
        assert resolved(method=name, local_views=0).views.local_view_size is None


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_without_small_views_there_are_two(name):
    training = begun(method=name, local_views=0, **FEW)
    assert [(view.size, view.count) for view in training.method.views()] == [(None, 2)]
    losses, _ = take_steps(training, 3)
    assert all(torch.tensor(losses).isfinite())


def test_small_views_are_drawn_by_a_policy_of_their_own():
    training = begun(method="simclr", augment="none", local_augment="erase", **FEW, **LOCAL)
    images = training.data[:16]
    first, second, *small = training.make_views(images, torch.Generator().manual_seed(0))
    plain = training.method.encoder.prepare(images)
    torch.testing.assert_close(first, plain)
    torch.testing.assert_close(second, plain)
    assert [tuple(view.shape) for view in small] == [(16, 1, 16, 16)] * 3
    assert not torch.equal(small[0], small[1])  # each with its own draws
    usual = resolved(method="simclr", augment="simclr", **LOCAL).views
    assert "crop:0.05:0.4" in usual.local_augment


def test_a_method_without_use_for_them_refuses_small_views_in_a_line(capsys):
    with pytest.raises(UserError, match="local_views=2: method supervised has no use for small views") as error:
        resolved(method="supervised", local_views=2)
    assert "\n" not in str(error.value)
    assert resolved(method="supervised", local_views=0).views.local_views == 0
    words = "pretrain --preset smoke -p method=supervised -p local_views=2"
    assert main(words.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sizes_that_the_network_cannot_take_are_fitted_or_refused():
    # The last map of the CNN, unless it is averaged, has to have as many places as that of 28 pixels: 3 x 3
    assert resolved(method="swav").views.local_view_size == 24
    assert resolved(method="swav", view_size=24, pool="avg").views.local_view_size == 16
    with pytest.raises(UserError, match=r"local_view_size=16: .*Use 24 to 31, or average") as error:
        resolved(method="swav", local_view_size=16)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="local_view_size=8: encoder cnn needs at least 16 pixels"):
        resolved(method="simclr", local_views=1, local_view_size=8, pool="avg")
    losses, _ = take_steps(begun(method="swav", **FEW), 2)
    assert all(torch.tensor(losses).isfinite())


# --- Names of runs ------------------------------------------------------------------------------------------------


def test_a_run_without_small_views_has_the_name_that_it_had_before_there_were_any():
    plain = resolved(method="simclr")
    assert plain.run_name == resolved(method="simclr", local_views=0).run_name
    assert plain.run_name == resolved(method="simclr", local_views=0, local_augment="none").run_name
    assert not [name for name in json.loads(plain.identity)["views"] if "local" in name]


def test_small_views_name_a_run_by_number_size_and_policy():
    others = [dict(local_views=2), dict(local_views=3), dict(local_views=2, local_view_size=20),
              dict(local_views=2, local_augment="none"), dict(local_views=0)]  # fmt: skip
    names = [resolved(method="simclr", pool="avg", **other).run_name for other in others]
    assert len(set(names)) == len(others)
    spelled = resolved(method="simclr", pool="avg", local_views=2)
    asked = dict(local_view_size=16, local_augment=spelled.views.local_augment)
    assert resolved(method="simclr", pool="avg", local_views=2, **asked).run_name == spelled.run_name
    assert resolved(method="swav").run_name != resolved(method="swav", local_views=0).run_name


def test_what_is_found_stays_when_it_is_resolved_again():
    images = load_images("digits")
    for parameters in (dict(method="swav"), dict(method="byol"), dict(method="mocov2", n_images=500)):
        once, _ = resolve(Settings(preset="smoke", **FEW | parameters), images)
        again, _ = resolve(once, images)
        assert again == once
        assert again.run_name == once.run_name


# --- A method of one's own ----------------------------------------------------------------------------------------


def test_a_new_method_has_no_small_views_unless_it_says_so(monkeypatch):
    class Own(Method):
        def forward(self, batch, progress):
            return loop.Output(sum(self.encoder(view).square().mean() for view in batch.views))

    monkeypatch.setitem(METHODS._entries, "own", Own)
    with pytest.raises(UserError, match="method own has no use for small views"):
        resolved(method="own", local_views=1)
    monkeypatch.setattr(Own, "MULTI_CROP", True)
    training = begun(method="own", **FEW, **LOCAL)
    assert [len(view) for view in batch_of(training).views] == [16] * 5
