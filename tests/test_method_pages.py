"""Reports of other methods than SimCLR say nothing of terms that their method does not have."""

import re

import pytest

from contrastive.__main__ import main
from contrastive.settings import METHODS
from contrastive.storage.files import read_json

from .cells import without_kernels

SMALL = "-p n_images=128 -p batch_size=64 -p epochs=1 -p budgets=50 -p supervised_steps=2 -p general=none"
NARROW = "-p hidden_dim=32 -p projection_dim=16"
CHOSEN = {
    "byol": f"-p encoder=resnet18 -p stem=imagenet {NARROW}",
    "mocov2": "-p base_channels=2 -p queue_size=64 -p head=linear",
    "supervised": "-p base_channels=2",
    "supcon": "-p base_channels=2",
    **dict.fromkeys(("mocov3", "simsiam", "barlow_twins", "vicreg"), f"-p base_channels=2 {NARROW}"),
    **dict.fromkeys(("swav", "dino"), f"-p base_channels=2 {NARROW} -p local_views=2 -p pool=avg"),
}
READ_LABELS = {"supcon", "supervised"}


@pytest.fixture(scope="module", params=CHOSEN)
def made(request, tmp_path_factory):
    """A method's name, its report's folder, and the results."""
    folder, method = tmp_path_factory.mktemp("report"), request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTRASTIVE_RUNS", str(folder / "runs"))
        without_kernels(patch, folder / "reports")
        words = f"report --preset smoke --only 01_pretrain --only 02_linear_eval {SMALL} -p method={method}"
        words = f"{words} {CHOSEN[method]} --out {folder / 'report'}"
        assert main(words.split()) in (0, 1)  # so short a training may leave chance, or not
    return method, folder / "report", read_json(folder / "report" / "results.json")


def said_of_training(folder):
    """What the page of 01_pretrain says of this run: answer, key numbers, sentences, checks, and the figure of the
    loss; without the notebook's own words, which tell the code of SimCLR's loss."""
    page = (folder / "01_pretrain.html").read_text()
    parts = re.findall(r'(?s)<section aria-label="In short".*?</section>', page)
    parts += re.findall(r"(?s)<p>(The loss went from.*?)</p>", page)
    parts += re.findall(r'(?s)<table class="record (?:answers|checks)">.*?</table>', page)
    parts += re.findall(r'alt="(Loss by epoch[^"]*)"', page)
    assert len(parts) == 5
    return re.sub(r"<[^>]+>|data:[^\"]+", " ", " ".join(parts))


def test_every_other_method_has_a_report():
    assert CHOSEN.keys() == set(METHODS) - {"simclr"}


def test_no_cell_fails_and_every_number_is_there(made):
    method, _, results = made
    assert "errors" not in results or results["errors"] == []
    assert results["settings"]["method"] == method
    for name in ("linear_accuracy@50", "random_encoder_accuracy@50", "supervised_accuracy@50", "effective_rank"):
        assert name in results["metrics"]
    assert ("effective_rank_z" in results["metrics"]) == (method != "supervised")  # which has no projections


def test_the_page_tells_the_method_by_its_name_and_formula(made):
    method, folder, _ = made
    page = (folder / "01_pretrain.html").read_text()
    cls = METHODS[method]
    assert f"<em>{cls.TITLE}.</em>" in page
    assert 'display="block"' in page
    assert f"{cls.TITLE} trained on 128 images" in said_of_training(folder)
    reads_labels = "It read the labels of these images." in said_of_training(folder)
    assert reads_labels == (method in READ_LABELS)
    assert ("No label was used." in said_of_training(folder)) == (not reads_labels)


def test_what_is_said_of_training_has_no_terms_of_another_method(made):
    method, folder, results = made
    said = said_of_training(folder)
    key, what = next(iter(METHODS[method].LOG.items()))
    assert what.label in said
    assert key in results["history"]["seed 0"][0]
    for word in ("positive", "anchor", "SimCLR", "NT-Xent", "nearest view"):
        assert word not in said or method == "supcon", word  # which has them in common with SimCLR
    knows_chance = method not in ("byol", "simsiam")
    assert ("chance_loss" in results["history"]["seed 0"][0]) == knows_chance
    assert ("chance" in said) == knows_chance
    assert ("the loss left chance (seed 0)" in [check["name"] for check in results["checks"]]) == knows_chance


def test_the_other_page_names_encoder_and_method(made):
    method, folder, _ = made
    page = (folder / "02_linear_eval.html").read_text()
    first = page[page.index('class="first"') : page.index("<article")]
    assert f"method {method}" in first
    assert ("encoder resnet18" in first) == (method == "byol")
    assert "CNN" not in re.sub(r"(?s)<script.*?</script>|<style.*?</style>|data:[^\"]+", "", page)
