"""A simulated data set through the whole product, in every edition."""

import pytest

from data_contracts.challenge.editions import EDITIONS, TASKS_OF_EDITION
from data_contracts.vocabulary import TASKS
from flows.commands.parameters import SimulateParameters, VerifyParameters
from flows.commands.simulate import simulate
from flows.commands.verify import verify
from flows.fit import fit
from flows.submit import submit
from tasks.challenge_files import list_file, sample_file
from tasks.simulate import footage


@pytest.mark.service
def test_submissions_of_every_edition_have_no_fault(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(footage, "MOST_FRAMES", 0)
    out = tmp_path / "out"
    assert simulate(SimulateParameters(out, scale=0.001, workers=1)) == 0
    for task in TASKS:
        fit(task, str(out / "store"), out / "data" / "abaw3", recipe="paper", seeds=1, workers=1)
    printed = capsys.readouterr().out
    assert "no videos and crops: more than 0 frames" in printed
    assert "labelled beyond video" in printed and "warning" not in printed
    verified = []
    for edition in EDITIONS:
        for task in TASKS_OF_EDITION[edition]:
            root = out / "data" / edition
            path = (None if task == "mtl" else sample_file(root, edition, task)) or list_file(root, edition, task)
            written = submit(task, str(out / "store"), path, edition=edition, workers=1)
            assert verify(VerifyParameters(written, test_list=str(path))) == 0
            verified.append((edition, task))
    assert len(verified) == 15
