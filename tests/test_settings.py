"""Parameters: flat names in, checked components out, and one line for every mistake."""

import json
import math
import pickle

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contrastive import Settings, UserError, notebook_settings
from contrastive.losses import LOSSES
from contrastive.settings import ENCODERS, METHODS, OPTIMISERS, PRESETS, parameters


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temprature": 1}, "unknown parameter 'temprature'. Did you mean 'temperature'?"),
        ({"preset": "quik"}, "Did you mean 'quick'?"),
        ({"preset": None}, "unknown preset 'None'"),
        ({"encoder": "cn"}, "Did you mean 'cnn'? Choose one of: cnn, "),
        ({"encoder": "vit_teeny"}, "Did you mean 'vit_tiny'?"),
        ({"encoder": "resnet81"}, "Did you mean 'resnet18'?"),
        ({"method": "moco2"}, "Did you mean 'mocov2'?"),
        ({"method": None}, "unknown method 'None'"),
        ({"optimiser": "adm"}, "unknown optimiser 'adm'. Did you mean 'adam'? Choose one of: adam, adamw, sgd, lars."),
        ({"augment": "simcl"}, "Did you mean 'simclr'?"),
        ({"augment": "simclr-flip"}, "Did you mean 'hflip'?"),
        ({"augment": "handwriting-hflip"}, "'hflip'. Choose one of: crop, rotate, shear, stroke, jitter."),
        ({"augment": "handwriting+elastc"}, "Did you mean 'elastic'?"),
        ({"augment": "handwriting+rotate:200"}, "rotate:200: degrees to either side has to be a number from 0 to 180"),
        ({"augment": "crop:1"}, "crop takes 2 numbers"),
        ({"augment": "crop:1:0.5"}, "the first number has to be the smaller one"),
        ({"augment": "handwriting-crop:0.5:1"}, "crop takes 2 numbers"),
        ({"augment": "noise:nan"}, "noise:nan"),
        ({"augment": "auto-crop"}, "unknown operation"),
        ({"augment": ""}, "Choose one of: hflip"),
        ({"second_augment": "simcl"}, "Did you mean 'simclr'?"),
        ({"view_size": 3}, "view_size=3"),
        ({"loss": "ntxent"}, "unknown loss 'ntxent'. Did you mean 'nt_xent'?"),
        ({"head": "mpl"}, "Did you mean 'mlp'?"),
        ({"pool": "mean"}, "unknown pool 'mean'. Choose one of: none, avg."),
        ({"encoder": "resnet18", "stem": "large"}, "Choose one of: auto, small, pooled, imagenet."),
        ({"temperature": 0}, "parameter temperature=0: input should be greater than 0"),
        ({"temperature": "warm"}, "temperature='warm'"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"method": "byol", "momentum": 1.5}, "parameter momentum=1.5: input should be less than or equal to 1"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"epochs": True}, "a number is needed"),
        ({"seed": -1}, "seed=-1"),
        ({"n_images": "many"}, "n_images='many'"),
        ({"budgets": "1"}, "at least 2"),
        ({"evaluation": "ful"}, "unknown evaluation 'ful'. Did you mean 'full'?"),
        ({"grids": "temprature"}, "unknown grid 'temprature'. Did you mean 'temperature'?"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cpu:0"}, "unknown device 'cpu:0'"),
        ({"width": 4}, "parameter 'width' is called 'base_channels'."),
        ({"features": "mean"}, "parameter 'features' is called 'pool'."),
        ({"ablation_width": 4}, "parameter 'ablation_width' is called 'ablation_base_channels'."),
    ],
)
def test_a_mistake_is_one_line_that_names_the_parameter(given, said):
    for make in (lambda: Settings(**given), lambda: Settings().replace(**given)):
        with pytest.raises(UserError) as caught:
            make()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"method": "byol", "temperature": 0.2},
            "parameter temperature=0.2 belongs to method simclr, mocov2, mocov3, supcon or swav, and byol was chosen. "
            "Leave it out, or choose method=simclr.",
        ),
        (
            {"queue_size": 64},
            "parameter queue_size=64 belongs to method mocov2, and simclr was chosen. Leave it out, or choose "
            "method=mocov2.",
        ),
        (
            {"method": "supervised", "head": "mlp"},
            "head=mlp belongs to method simclr, mocov2 or supcon, and supervised was",
        ),
        (
            {"stem": "small"},
            "parameter stem=small belongs to encoder resnet18, resnet34 or resnet50, and cnn was chosen.",
        ),
        (
            {"encoder": "resnet18", "base_channels": 8},
            "base_channels=8 belongs to encoder cnn or resnet9, and resnet18 was chosen",
        ),
    ],
)
def test_a_parameter_of_what_was_not_chosen_says_which_has_it(given, said):
    with pytest.raises(UserError) as caught:
        Settings(**given)
    assert said in str(caught.value)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["simclr", "byol", "mocov2"]),
    st.dictionaries(
        st.sampled_from(sorted({*parameters()} - {"method"})),
        st.none() | st.booleans() | st.text() | st.integers() | st.floats() | st.lists(st.integers(), max_size=3),
        max_size=4,
    ),
)
def test_any_values_give_settings_or_one_line(method, given):
    try:
        settings = Settings(method=method, **given)
    except UserError:
        return  # any other exception would fail the test
    assert Settings(**settings.flat()) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_text_from_yaml_and_shells_is_read():
    read = Settings(lr="1e-3", epochs="7", budgets="600, 100", l2_normalize="false", n_images="64")
    assert read == Settings(lr=1e-3, epochs=7, budgets=(100, 600), l2_normalize=False, n_images=64)
    assert Settings(budgets=100).evaluation.budgets == (100,)
    assert Settings(dataset="digits", transfer="digits") == Settings(
        dataset="sklearn_digits", transfer="sklearn_digits"
    )


def test_flat_names_in_components_out():
    settings = Settings(method="mocov2", encoder="resnet18", optimiser="sgd", evaluation="full", momentum=0.5, seed=3)
    assert (settings.method.name, settings.method.momentum, settings.runtime.seed) == ("mocov2", 0.5, 3)
    assert (settings.encoder.name, settings.encoder.stem) == ("resnet18", "auto")
    assert (settings.optimiser.name, settings.evaluation.level) == ("sgd", "full")
    flat = settings.flat()
    assert (flat["method"], flat["encoder"], flat["optimiser"], flat["evaluation"]) == (
        "mocov2", "resnet18", "sgd", "full",
    )  # fmt: skip
    assert not {"name", "level", "base_channels", "loss"} & flat.keys()
    assert list(flat)[:2] == ["preset", "dataset"]
    for component in ("runtime", "method"):
        with pytest.raises(ValidationError):
            getattr(settings, component).seed = 4


def test_every_parameter_is_listed_with_its_description():
    listed = parameters()
    chosen = [Settings(method=method, encoder=encoder).flat() for method in METHODS for encoder in ENCODERS]
    assert listed.keys() == set().union(*chosen)
    assert all(len(text) > 5 for text in listed.values())


@pytest.mark.parametrize("method", ["simclr", "byol", "mocov2", "supervised"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_count_where_their_parameters_do(preset, method):
    settings = Settings(preset=preset, method=method, encoder="cnn", seed=3)
    flat = settings.flat()
    assert flat["seed"] == 3
    shared = {name: value for name, value in PRESETS[preset].items() if not isinstance(value, dict)}
    of_use = {**shared, **PRESETS[preset].get("cnn", {}), **PRESETS[preset].get(method, {})}
    assert {name: flat[name] for name in of_use} == of_use


def test_a_presets_values_for_what_was_not_chosen_are_dropped():
    assert "momentum" not in Settings(preset="smoke").flat()
    assert Settings(preset="smoke", method="mocov2").method.momentum == 0.9
    assert Settings(preset="full").method.temperature == 0.5
    assert Settings(preset="full", method="mocov2").method.temperature == 0.2  # its own, not that of SimCLR
    assert "base_channels" not in Settings(preset="smoke", encoder="resnet18").flat()


def test_replace_changes_what_is_given_and_checks_it_again():
    settings = Settings(preset="smoke", temperature=0.3, seed=2, base_channels=5)
    assert settings.replace(epochs="9") == Settings(preset="smoke", temperature=0.3, seed=2, base_channels=5, epochs=9)
    assert settings.replace(method="simclr") == settings
    with pytest.raises(UserError, match="epochs=0"):
        settings.replace(epochs=0)
    with pytest.raises(UserError, match="temperature=1 belongs to"):
        settings.replace(method="byol", temperature=1)


@pytest.mark.parametrize("method", ["byol", "mocov2", "supervised"])
def test_replace_drops_the_parameters_of_the_method_that_was_chosen_before(method):
    # Also those that share a name: SimCLR's temperature is not MoCo's.
    settings = Settings(temperature=0.3, projection_dim=7, seed=2, base_channels=5)
    assert settings.replace(method=method) == Settings(method=method, seed=2, base_channels=5)
    assert settings.replace(encoder="resnet18") == Settings(
        encoder="resnet18", temperature=0.3, projection_dim=7, seed=2
    )
    there = Settings(preset="smoke").replace(method=method)
    assert there == Settings(preset="smoke", method=method)
    assert there.replace(method="simclr") == Settings(preset="smoke")


@pytest.mark.parametrize("method", ["simclr", "byol", "mocov2", "supervised"])
def test_settings_survive_pickle_and_json(method):
    settings = Settings(preset="smoke", method=method, encoder="resnet18", second_augment="none", transfer="mnist")
    settings = settings.model_copy(update={"data_sha256": "0123"})
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert (again.data_sha256, again.identity) == ("0123", settings.identity)
    assert type(again.method) is type(settings.method)
    read = json.loads(json.dumps(settings.as_json(), allow_nan=False))
    assert read == settings.as_json()
    assert Settings(**read).model_copy(update={"data_sha256": "0123"}) == settings


def test_the_checksum_of_images_goes_with_the_images():
    settings = Settings(dataset="mnist").model_copy(update={"data_sha256": "0123"})
    assert settings.replace(seed=4).data_sha256 == "0123"
    assert settings.replace(dataset="mnist").data_sha256 == "0123"
    assert settings.replace(dataset="sklearn_digits").data_sha256 == ""


def test_names_that_settings_allow_are_those_that_exist():
    for name, known in (("encoder", ENCODERS), ("method", METHODS), ("loss", LOSSES), ("optimiser", OPTIMISERS)):
        with pytest.raises(UserError) as caught:
            Settings(**{name: "?"})
        assert str(caught.value).endswith(f"Choose one of: {', '.join(known)}.")
        for choice in known:
            assert Settings(**{name: choice}).flat()[name] == choice


def test_notebook_parameters():
    namespace = {"preset": "smoke", "epochs": None, "seed": 5, "other": 1, "In": ["", "seed = 5\nother = 1"]}
    assert notebook_settings(namespace) == Settings(preset="smoke", seed=5)
    injected = {**namespace, "epohcs": 3, "In": ["", "# Parameters\nseed = 5\nepohcs = 3\n"]}
    with pytest.raises(UserError, match="Did you mean 'epochs'"):
        notebook_settings(injected)
    with pytest.raises(UserError, match="belongs to method mocov2"):
        notebook_settings({**namespace, "queue_size": 8})
