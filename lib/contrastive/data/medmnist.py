"""MedMNIST v2's two-dimensional data sets, in all sizes: where they are, and how they are recognised."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..settings import RunError
from .download import answering, check_md5, fetch, md5_of, sole_writer, unwritable
from .guards import data_file, fit_memory

MIRRORS = ["https://zenodo.org/records/10519652/files/"]
SIDES = (28, 64, 128, 224)
CITATION = (
    "J. Yang, R. Shi, D. Wei, Z. Liu, L. Zhao, B. Ke, H. Pfister, B. Ni: MedMNIST v2, Scientific Data 10 (2023) 41; "
    "not for clinical use"
)
NON_COMMERCIAL = ("dermamnist",)  # CC BY-NC 4.0; the others are CC BY 4.0
MULTI_LABEL = ("chestmnist",)  # an image has any number of its classes
# MD5 of what the first release of v2 had under these names: somewhat more images of organs.
FIRST_RELEASE_MD5 = {
    "organamnist": "866b832ed4eeba67bfb9edee1d5544e6",
    "organcmnist": "0afa5834fb105f7705a7d93372119a21",
    "organsmnist": "e5c39f1af030238290b9557d9503af9d",
}


@dataclass(frozen=True)
class MedMnist:
    """A data set, in all its sizes.

    Args:
        name: of its .npz file of 28x28 pixels.
        title: for people.
        shows: what its images are.
        channels: 1 or 3.
        n_images: to train, to validate and to test.
        classes: their names; long ones are shortened.
        md5: of the files, one for each of SIDES.
    """

    name: str
    title: str
    shows: str
    channels: int
    n_images: tuple[int, int, int]
    classes: tuple[str, ...]
    md5: tuple[str, ...]

    def files(self) -> Iterator["MedFile"]:
        """One file for each size."""
        for side, md5 in zip(SIDES, self.md5, strict=True):
            yield MedFile(self, self.name if side == SIDES[0] else f"{self.name}_{side}", side, md5)

    @property
    def about(self) -> str:
        """What it is, its licence, and what to cite."""
        licence = "CC BY-NC 4.0" if self.name in NON_COMMERCIAL else "CC BY 4.0"
        return f"{self.title}: {self.shows}; {licence}. {CITATION}"


@dataclass(frozen=True)
class MedFile:
    """One size of a data set."""

    data: MedMnist
    name: str
    side: int
    md5: str

    def path(self, root: Path) -> Path:
        """Where it lies."""
        return root / f"{self.name}.npz"

    def ensure(self, root: Path) -> Path:
        """The file under `root`, downloaded if need be. What is there already is taken, whatever its checksum.

        Raises: NoNetworkError; UserError.
        """
        path = self.path(root)
        if not _there(path):
            images = [n * self.data.channels * self.side**2 for n in self.data.n_images]
            fit_memory(images[0] + images[2], self.name)  # before hours of download, not after
            name = f"{path.name}?download=1"
            mirrors = answering(MIRRORS, name)
            largest = sum(images) + 256 * sum(self.data.n_images) + 2**20  # images that do not compress, labels
            with sole_writer(path, f"fetching {self.data.title}"):
                if not _there(path):  # which another process may have changed
                    try:
                        fetch(mirrors, name, path, check_md5(self.md5), largest, self.data.title)
                    except RunError as problem:
                        raise unwritable(problem) from None
        return data_file(path, root)

    def note(self, path: Path) -> str:
        """What a reader must know of a file that bears its name: nothing, if it is the original."""
        md5 = md5_of(path)
        if md5 == self.md5:
            return ""
        if md5 == FIRST_RELEASE_MD5.get(self.name):
            return f"{path} is of the first release of {self.data.title}, which had other images."
        return f"{path} is not the file that is published as {self.data.title}: its MD5 is another."


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


# fmt: off
ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left",
    "lung-right", "pancreas", "spleen",
)
MEDMNIST = (
    MedMnist(
        "pathmnist", "PathMNIST", "colon tissue under the microscope", 3, (89996, 10004, 7180),
        (
            "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
            "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
        ),
        (
            "a8b06965200029087d5bd730944a56c1", "55aa9c1e0525abe5a6b9d8343a507616",
            "ac42d08fb904d92c244187169d1fd1d9", "2c51a510bcdc9cf8ddb2af93af1eadec",
        ),
    ),
    MedMnist(
        "chestmnist", "ChestMNIST", "chest X-rays", 1, (78468, 11219, 22433),
        (
            "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
            "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
        ),
        (
            "02c8a6516a18b556561a56cbdd36c4a8", "9de6cd0b934ebb5b7426cfba5efbae16",
            "db107e5590b27930b62dbaf558aebee3", "45bd33e6f06c3e8cdb481c74a89152aa",
        ),
    ),
    MedMnist(
        "dermamnist", "DermaMNIST", "skin lesions", 3, (7007, 1003, 2005),
        (
            "actinic keratoses, carcinoma in situ", "basal cell carcinoma", "benign keratosis-like lesions",
            "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
        ),
        (
            "0744692d530f8e62ec473284d019b0c7", "b70a2f5635c6199aeaa28c31d7202e1f",
            "2defd784463fa5243564e855ed717de1", "8974907d8e169bef5f5b96bc506ae45d",
        ),
    ),
    MedMnist(
        "octmnist", "OCTMNIST", "optical coherence tomography of the retina", 1, (97477, 10832, 1000),
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        (
            "c68d92d5b585d8d81f7112f81e2d0842", "e229e9440236b774d9f0dfef9d07bdaf",
            "0a97e76651ace45c5d943ee3f65b63ae", "abc493b6d529d5de7569faaef2773ba3",
        ),
    ),
    MedMnist(
        "pneumoniamnist", "PneumoniaMNIST", "children's chest X-rays", 1, (4708, 524, 624),
        ("normal", "pneumonia"),
        (
            "28209eda62fecd6e6a2d98b1501bb15f", "8f4eceb4ccffa70c672198ea285246c6",
            "05b46931834c231683c68f40c47b2971", "d6a3c71de1b945ea11211b03746c1fe1",
        ),
    ),
    MedMnist(
        "retinamnist", "RetinaMNIST", "fundus photographs", 3, (1080, 120, 400),
        ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"),
        (
            "bd4c0672f1bba3e3a89f0e4e876791e4", "afda852cc34dcda56f86ad2b2457dbcc",
            "e48e916a24454daf90583d4e6efb1a18", "eae7e3b6f3fcbda4ae613ebdcbe35348",
        ),
    ),
    MedMnist(
        "breastmnist", "BreastMNIST", "breast ultrasound", 1, (546, 78, 156),
        ("malignant", "normal, benign"),
        (
            "750601b1f35ba3300ea97c75c52ff8f6", "742edef2a1fd1524b2efff4bd7ba9364",
            "363e4b3f8d712e9b5de15470a2aaadf1", "b56378a6eefa9fed602bb16d192d4c8b",
        ),
    ),
    MedMnist(
        "bloodmnist", "BloodMNIST", "blood cells under the microscope", 3, (11959, 1712, 3421),
        (
            "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte",
            "neutrophil", "platelet",
        ),
        (
            "7053d0359d879ad8a5505303e11de1dc", "2b94928a2ae4916078ca51e05b6b800b",
            "adace1e0ed228fccda1f39692059dd4c", "b718ff6835fcbdb22ba9eacccd7b2601",
        ),
    ),
    MedMnist(
        "tissuemnist", "TissueMNIST", "kidney cortex cells under the microscope", 1, (165466, 23640, 47280),
        (
            "collecting Duct, Connecting Tubule", "distal Convoluted Tubule", "glomerular endothelial cells",
            "interstitial endothelial cells", "leukocytes", "podocytes", "proximal Tubule Segments",
            "thick Ascending Limb",
        ),
        (
            "ebe78ee8b05294063de985d821c1c34b", "123ece2eba09d0aa5d698fda57103344",
            "61b955355d7425a89687b06cca3ce0c2", "b077128c4a949f0a4eb01517f9037b9c",
        ),
    ),
    MedMnist(
        "organamnist", "OrganAMNIST", "abdominal CT, axial", 1, (34561, 6491, 17778),
        ORGANS,
        (
            "68e3f8846a6bd62f0c9bf841c0d9eacc", "2dcccc29b88e6da5a01161ef20cda288",
            "eeae80d0a227a8d099027e1b3cfd3b60", "50747347e05c87dd3aaf92c49f9f3170",
        ),
    ),
    MedMnist(
        "organcmnist", "OrganCMNIST", "abdominal CT, coronal", 1, (12975, 2392, 8216),
        ORGANS,
        (
            "b9ceb9546e10131b32923c5bbeaea2b1", "3ce34a8724ea6f548e6db4744d03b6a9",
            "773c1f009daa3fe5d9a2a201b2a7ed94", "050f5e875dc056f6768abf94ec9995d1",
        ),
    ),
    MedMnist(
        "organsmnist", "OrganSMNIST", "abdominal CT, sagittal", 1, (13932, 2452, 8827),
        ORGANS,
        (
            "9ab87b696fb54e2a387ebe992d6ed5f1", "53a6d115339d874c25e309a994ff46d3",
            "ded0c5fa01a95dc4978b956f613e9b8e", "b354719e553fbbb2513d5533f52a4cb1",
        ),
    ),
)
# fmt: on
