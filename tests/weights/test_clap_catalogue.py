"""What the catalogue says of CLAP's files is what our models and readers say."""

import pytest
import torch
from clap_files import clapcap, laion, msclap_2022, msclap_2023

from otic.inference.load import load
from otic.models.cnn14 import Cnn14, Cnn14Config
from otic.models.htsat import HTSAT, HTSATConfig
from otic.weights.anyfile import read
from otic.weights.catalogue import CATALOGUE
from otic.weights.upstream.table import blank

CLAP = [entry for entry in CATALOGUE.values() if "CLAP" in entry.system]


def test_the_published_files_are_listed():
    files = {entry.file for entry in CLAP}
    assert files >= {"CLAP_weights_2023.pth", "CLAP_weights_2022.pth", "clapcap_weights_2023.pth", "630k-best.pt"}
    assert files >= {"630k-audioset-best.pt", "630k-fusion-best.pt", "630k-audioset-fusion-best.pt"}
    assert sum("larger_clap" in entry.repository for entry in CLAP) == 3
    assert all(e.repository and e.page and e.licence and e.paper and e.labels_used != "none" for e in CLAP)
    assert all(0 < score < 1 for e in CLAP for score in e.scores.values())


@pytest.mark.parametrize(
    ("build", "cfg", "names"),
    [
        (HTSAT, HTSATConfig(classes=0), ("msclap-2023", "clapcap", "laion-clap-630k", "clap-htsat-unfused")),
        (HTSAT, HTSATConfig(classes=0, fusion=True), ("laion-clap-630k-fusion", "clap-htsat-fused")),
        (
            HTSAT,
            HTSATConfig(classes=0, width=128, depths=(2, 2, 12, 2)),
            ("larger-clap-music", "laion-clap-music-speech"),
        ),
        (Cnn14, Cnn14Config(classes=0), ("msclap-2022",)),
    ],
)
def test_the_counts_of_parameters_are_those_of_our_models(build, cfg, names):
    counted = sum(p.numel() for p in blank(build, cfg).parameters())
    assert {CATALOGUE[name].parameters for name in names} == {counted}


@pytest.mark.parametrize(
    ("name", "make"),
    [("msclap-2023", msclap_2023), ("msclap-2022", msclap_2022), ("clapcap", clapcap), ("laion-clap-630k", laion)],
)
def test_an_entry_and_its_file_make_one_card(name, make, tmp_path):
    torch.save(make()[1], tmp_path / "file.pt")
    card = read(tmp_path / "file.pt", CATALOGUE[name]).card
    assert card["name"] == name and card["licence"] == CATALOGUE[name].licence and "hears" in card["filterbank"]["says"]


@pytest.mark.parametrize(
    ("make", "seconds", "dim"), [(msclap_2023, 7.0, 16), (msclap_2022, 5.0, 8), (laion, 10.0, 16), (clapcap, 7.0, 16)]
)
def test_the_inference_defaults_fit_the_model(make, seconds, dim, tmp_path):
    torch.save(make()[1], tmp_path / "file.pt")
    model = load(tmp_path / "file.pt", device="cpu")
    assert model.card["inference"]["window"] == seconds >= model.options.window  # these towers hear less at once
    assert model.options.short in ("repeat", "repeatpad")
    wave = torch.sin(torch.arange(model.sample_rate // 2) * 0.05).numpy()
    found = model.embed(wave, sample_rate=model.sample_rate)
    assert found.vectors.shape == (1, dim) and torch.isfinite(torch.from_numpy(found.vectors)).all()
