from pathlib import Path

from models.backbones.registry import REGISTRY
from models.weight_files.catalogue import CATALOGUE, network_of
from models.weight_files.licences import COMMERCIAL_MEANING, LICENCES

PAGE = Path(__file__).parents[3] / "docs" / "backbones.md"


def test_every_network_has_a_licence():
    networks = {*REGISTRY, *map(network_of, CATALOGUE.values())}
    assert networks == {name for name in LICENCES if not name.startswith("MTCNN")}


def test_the_documentation_states_the_same():
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines()]
    for name, licence in LICENCES.items():
        assert [name, licence.weights, ", ".join(licence.data), licence.commercial] in rows
    sources = PAGE.read_text().split("Sources:")[1]
    for collection in {one for licence in LICENCES.values() for one in licence.data} - {"see file", "unknown"}:
        assert collection in sources, collection


def test_networks_trained_on_research_data_are_not_for_companies():
    for name, licence in LICENCES.items():
        assert licence.commercial in COMMERCIAL_MEANING
        if {"AffectNet", "VGGFace2"} & set(licence.data):
            assert licence.commercial == "no", name
