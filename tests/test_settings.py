import json
import math

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contrastive import Settings, UserError, notebook_settings
from contrastive.encoders.cnn import ENCODERS
from contrastive.losses.ntxent import LOSSES
from contrastive.methods.simclr import METHODS
from contrastive.settings.model import (
    OPERATIONS,
    POLICIES,
    PRESETS,
    RUN_FIELDS,
    make_settings,
    parse_policy,
    spell_policy,
)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temprature": 1}, "unknown parameter 'temprature'. Did you mean 'temperature'?"),
        ({"preset": "quik"}, "Did you mean 'quick'?"),
        ({"encoder": "cn"}, "Did you mean 'cnn'? Choose one of: cnn."),
        ({"method": "simclr2"}, "Choose one of: simclr."),
        ({"augment": "simcl"}, "Did you mean 'simclr'?"),
        ({"augment": "simclr-flip"}, "Did you mean 'hflip'?"),
        ({"augment": "digits-hflip"}, "'hflip'. Choose one of: crop, rotate, shear, stroke, jitter."),
        ({"augment": "digits+elastc"}, "Did you mean 'elastic'?"),
        ({"augment": "digits+rotate:200"}, "rotate:200: degrees to either side has to be a number from 0 to 180"),
        ({"augment": "crop:1"}, "crop takes 2 numbers"),
        ({"augment": "crop:1:0.5"}, "the first number has to be the smaller one"),
        ({"augment": "digits-crop:0.5:1"}, "crop takes 2 numbers"),
        ({"augment": "noise:nan"}, "noise:nan"),
        ({"augment": ""}, "Choose one of: hflip"),
        ({"second_augment": "simcl"}, "Did you mean 'simclr'?"),
        ({"view_size": 3}, "view_size=3"),
        ({"loss": "ntxent"}, "Did you mean 'nt_xent'?"),
        ({"temperature": 0}, "temperature=0"),
        ({"temperature": "warm"}, "temperature='warm'"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"epochs": True}, "a number is needed"),
        ({"seed": -1}, "seed=-1"),
        ({"n_images": "many"}, "n_images='many'"),
        ({"budgets": "1"}, "at least 2"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_parameter(given, said):
    with pytest.raises(UserError) as caught:
        make_settings(**given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError):
        Settings(**given)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.none() | st.text() | st.integers() | st.floats())
)
def test_any_values_give_settings_or_one_line(given):
    try:
        settings = make_settings(**given)
    except UserError:
        return  # any other exception would fail the test
    assert Settings(**settings.model_dump()) == settings


def test_text_from_yaml_and_shells_is_read():
    assert make_settings(lr="1e-3", epochs="7", budgets="600, 100") == make_settings(
        lr=1e-3, epochs=7, budgets=(100, 600)
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_can_be_changed(preset):
    settings = Settings(preset=preset, seed=3)
    assert settings.seed == 3
    assert all(getattr(settings, name) == value for name, value in PRESETS[preset].items())
    with pytest.raises(ValidationError):
        settings.seed = 4


def test_the_run_name_follows_from_what_decides_the_weights_alone():
    settings = Settings(dataset="digits")
    assert set(json.loads(settings.canonical_json())) == set(RUN_FIELDS)
    assert settings.but(supervised_steps=7, n_seeds=3, preset="full").run_name == settings.run_name
    for change in ({"temperature": 0.31}, {"seed": 1}, {"width": 31}, {"augment": "digits-crop"}):
        assert settings.but(**change).run_name != settings.run_name
    assert "/" not in settings.but(dataset="/tmp/../a b<c>").run_name


def test_names_that_settings_allow_are_those_that_exist():
    for name, registry in (("encoder", ENCODERS), ("method", METHODS), ("loss", LOSSES)):
        with pytest.raises(UserError) as caught:
            make_settings(**{name: "?"})
        assert str(caught.value).endswith(f"Choose one of: {', '.join(registry)}.")


def test_policies_are_read():
    assert parse_policy("none") == {}
    assert parse_policy("simclr-crop-hflip-grayscale+blur:0:1") == {"jitter": (0.4, 0.4, 0.4, 0.1), "blur": (0.0, 1.0)}
    assert parse_policy("rotate+crop:.3:1") == {"crop": (0.3, 1.0), "rotate": (15.0,)}  # in the order of application
    assert parse_policy("simclr+hflip:0.1")["hflip"] == (0.1,)
    assert spell_policy("rotate+crop") == spell_policy("crop+rotate")  # as they are applied, not as they are written
    for op in OPERATIONS:
        assert op not in parse_policy(f"simclr+{op}-{op}")
    for name in POLICIES:
        assert parse_policy(spell_policy(name)) == parse_policy(name)


def test_equal_policies_name_the_same_run():
    settings = Settings(dataset="digits", augment="simclr")
    assert settings.run_name == settings.but(augment=POLICIES["simclr"]).run_name
    assert settings.run_name != settings.but(augment="simclr+hflip:0.4").run_name
    assert settings.run_name != settings.but(second_augment="simclr-crop").run_name


def test_notebook_parameters():
    namespace = {"preset": "smoke", "epochs": None, "seed": 5, "other": 1, "In": ["", "seed = 5\nother = 1"]}
    assert notebook_settings(namespace) == Settings(preset="smoke", seed=5)
    injected = {**namespace, "epohcs": 3, "In": ["", "# Parameters\nseed = 5\nepohcs = 3\n"]}
    with pytest.raises(UserError, match="Did you mean 'epochs'"):
        notebook_settings(injected)
