"""Networks trained on labels: from scratch or fine-tuned, by the loop that all methods have, and kept."""

import pytest
import torch
import torch.nn.functional as F

from contrastive import Settings, load_encoder, load_images, pretrain, resolve
from contrastive.augment.pipeline import Augment
from contrastive.evaluation import labelled
from contrastive.evaluation.labelled import MOST_CROSS_VALIDATED, classifier, middle_and_headline, network_budgets
from contrastive.settings import RunError
from contrastive.storage.tensors import hash_tensors
from contrastive.training import initial_method, loop

from .trainings import begun, take_steps

SMOKE = Settings(preset="smoke", epochs=2, base_channels=4, budgets=(50, 200), supervised_steps=10, precision="float32")
INDEX = torch.arange(50)


def first_weights(network):
    return network.body[0].weight.detach()


def test_fine_tuning_starts_from_the_pretrained_weights_and_leaves_them(fresh_runs):
    run = pretrain(SMOKE, progress=False)
    images, encoder = load_images("digits"), load_encoder(run)
    before = hash_tensors(encoder.state_dict())
    one_step = run.settings.replace(supervised_steps=1)
    tuned = classifier(one_step, images, INDEX, encoder, augmented=False)
    assert hash_tensors(encoder.state_dict()) == before
    assert 0 < (first_weights(encoder) - first_weights(tuned.encoder)).abs().max() < 0.01  # one step away
    scratch = classifier(one_step, images, INDEX, augmented=False)
    begin = initial_method(run.settings, images.format).encoder
    assert 0 < (first_weights(scratch.encoder) - first_weights(begin)).abs().max() < 0.01
    assert tuned.predict(images.test[:7]).sum(1).allclose(torch.ones(7))


@pytest.mark.parametrize("augmented", [True, False])
def test_a_network_on_labels_sees_views_as_large_as_the_images(fresh_runs, monkeypatch, augmented):
    images, seen, policies = load_images("digits"), [], []
    real = Augment.__call__

    def watched(self, *args, **kwargs):
        seen.append(real(self, *args, **kwargs))
        policies.append(set(self.ranges))
        return seen[-1]

    monkeypatch.setattr(Augment, "__call__", watched)
    settings, _ = resolve(SMOKE.replace(view_size=24, supervised_steps=2, augment="crop", second_augment="rotate"))
    classifier(settings, images, INDEX, augmented=augmented)
    assert {tuple(views.shape[-2:]) for views in seen} == {(28, 28)}
    assert policies == [{"crop"} if augmented else set()] * 2  # one view an image and step, by the first policy


def test_the_loss_is_the_cross_entropy_of_the_labels():
    training = begun(method="supervised", base_channels=2, n_images=64, batch_size=64, precision="float32",
                     augment="none")  # fmt: skip
    method, x = training.method, training.method.encoder.prepare(training.data)
    with torch.no_grad():
        scores = method.classifier(method.encoder(x)).double()
    (loss,), state = take_steps(training, 1)
    own = scores.gather(1, training.labels[:, None]).squeeze(1)
    assert loss == pytest.approx((scores.exp().sum(1).log() - own).mean().item(), abs=1e-5)
    right = (scores.argmax(1) == training.labels).double().mean().item()
    assert state.sums[2].item() == pytest.approx(right)
    layer = {"weight": method.classifier.weight.grad, "bias": method.classifier.bias.grad}
    wrong = (scores.softmax(1) - F.one_hot(training.labels, 10)) / 64
    torch.testing.assert_close(layer["bias"].double(), wrong.sum(0), atol=1e-6, rtol=1e-4)


def test_a_network_trained_on_labels_is_kept_and_only_the_very_same_one_is_taken(fresh_runs, monkeypatch, capfd):
    images, trained = load_images("digits"), []
    usual, _ = resolve(SMOKE)
    real = labelled.train
    monkeypatch.setattr(labelled, "train", lambda *args: trained.append(1) or real(*args))

    def scores(settings=usual, index=INDEX, **how):
        return classifier(settings, images, index, **how).predict(images.test)

    first = scores()
    assert torch.equal(scores(), first)
    assert len(trained) == 1
    # What the pretraining was like does not decide the weights.
    without_weight = (dict(temperature=0.3), dict(method="byol"), dict(epochs=7, lr=1e-3, batch_size=32, n_images=99))
    for changes in without_weight:
        assert torch.equal(scores(usual.replace(**changes)), first), changes
    assert len(trained) == 1
    # Each of these does.
    encoder, other = (initial_method(usual.replace(seed=seed), images.format).encoder for seed in (5, 6))
    others = [
        scores(index=INDEX + 1), scores(usual.replace(supervised_steps=11)), scores(usual.replace(seed=1)),
        scores(usual.replace(augment="simclr")), scores(augmented=False), scores(pretrained=encoder),
        scores(usual.replace(pool="avg")), scores(usual.replace(precision="bfloat16")), scores(pretrained=other),
    ]  # fmt: skip
    assert len(trained) == 10
    assert not any(torch.equal(others[5], scored) for scored in others[6:])
    assert not any(torch.equal(other, first) for other in others)
    # Without augmentations it does not matter which ones the pretraining had.
    assert torch.equal(scores(usual.replace(augment="simclr"), augmented=False), others[4])
    assert len(trained) == 10
    # As many epochs, but the last one ends sooner.
    odd, even = (scores(usual.replace(supervised_steps=steps), torch.arange(256)) for steps in (11, 12))
    assert not torch.equal(odd, even)


def test_one_that_is_damaged_is_named_and_trained_again(fresh_runs, capsys):
    images, (settings, _) = load_images("digits"), resolve(SMOKE)
    first = classifier(settings, images, INDEX).predict(images.test)
    (path,) = (fresh_runs / "cache").glob("supervised-*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"1234")
    assert torch.equal(classifier(settings, images, INDEX).predict(images.test), first)
    assert f"{path} is damaged" in (said := capsys.readouterr().err)
    assert "It is made again." in said
    assert path.read_bytes() == whole
    classifier(settings, images, INDEX)
    assert capsys.readouterr().err == ""


def test_a_network_that_diverged_is_told_of_and_not_kept(fresh_runs, monkeypatch):
    step, steps = loop.take_step, []

    def poisoned(training, state):
        steps.append(1)
        if len(steps) == 3:
            with torch.no_grad():
                training.method.classifier.weight.fill_(float("nan"))
        step(training, state)

    monkeypatch.setattr(loop, "take_step", poisoned)
    with pytest.raises(RunError, match=r"trained on 50 labels has .* not finite"):
        classifier(resolve(SMOKE)[0], load_images("digits"), INDEX)
    assert not list((fresh_runs / "cache").glob("*.safetensors"))


@pytest.mark.parametrize(("labels", "batch", "steps"), [(50, 50, 10), (200, 128, 10), (1400, 128, 11), (2, 2, 10)])
def test_there_are_as_many_steps_as_asked_for_and_at_least_one_pass(fresh_runs, monkeypatch, labels, batch, steps):
    seen, real = [], loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda training, state: seen.append(training) or real(training, state))
    classifier(resolve(SMOKE)[0], load_images("digits"), torch.arange(labels))
    assert len(seen) == seen[0].steps == steps
    assert seen[0].settings.optimiser.batch_size == batch
    assert (seen[0].settings.optimiser.name, seen[0].settings.method.name) == ("adamw", "supervised")


def test_networks_are_trained_with_numbers_of_labels_that_lie_apart():
    budgets = (10, 50, 100, 600, 1000, 5000, 6000, 30_000, 60_000)
    assert network_budgets(budgets, 30_000, False) == [10, 100, 1000, 6000, 30_000, 60_000]
    usual = (100, 600, 5000, 30_000, 60_000)
    assert network_budgets(usual, 30_000, False) == [*usual]
    assert network_budgets((100, 200, 290, 300), 200, False) == [200, 300]  # the headline's, whatever lies beside it
    assert network_budgets((20_000, 30_000), 30_000, False) == [30_000]
    assert network_budgets((7,), 7, False) == [7]
    # In cross-validation each is one network a fold
    assert network_budgets(budgets, 60_000, True) == [1000, 6000, 60_000]
    assert network_budgets((10, 12), 12, True) == [12]
    assert MOST_CROSS_VALIDATED == 3


def test_fine_tuning_is_measured_where_it_can_save_labels_too():
    assert middle_and_headline([10, 40, 200, 1000, 5232], 5232) == [200, 5232]
    assert middle_and_headline([100, 600, 5000, 30_000, 60_000], 30_000) == [600, 30_000]
    assert middle_and_headline([50, 240], 240) == [50, 240]
    assert middle_and_headline([7, 9], 7) == [7]
