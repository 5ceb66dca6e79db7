"""Tests of the commands in docs/clusters.md that start a Dask cluster: they run as processes."""

import re
import subprocess

import pytest

from infra.certificates import write_certificate
from tests.infra.open_ports import open_to_anyone, ports_of
from tests.infra.operated import BIN, ROOT, running
from tests.processes import free_port, run_command
from tests.video_factory import VideoSpec, write_video

GUIDE = (ROOT / "docs" / "clusters.md").read_text()
FILES_OF_OPERATORS = [*ROOT.glob("docs/*.md"), ROOT / "README.md", *(ROOT / "infra").rglob("*.*")]


def own_cluster() -> list[str]:
    """Return the blocks of commands of the section."""
    section = GUIDE.partition("\n## Use your own Dask cluster\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)


def test_no_scheduler_listens_on_a_network_without_certificates():
    commands = [
        (path.name, re.sub(r"\s+", " ", command))
        for path in FILES_OF_OPERATORS
        if path.is_file() and path.suffix in (".md", ".sh", ".sbatch", ".service", ".example", ".py")
        for command in re.findall(r"^[^`#\n]*\bdask scheduler\b(?:.*\\\n)*.*", path.read_text(), re.M)
    ]
    assert len(commands) >= 3
    open_ones = [c for c in commands if "--protocol tls" not in c[1] and "--host 127.0.0.1" not in c[1]]
    assert open_ones == []


@pytest.mark.service
def test_the_commands_start_a_cluster_that_requires_its_certificate(tmp_path):
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "clip.mp4", VideoSpec(frame_count=4))
    create, read, scheduler, workers = own_cluster()[:4]
    port, page = free_port(), free_port()
    here = {"/srv/affwild2/tls": str(tmp_path / "tls"), "HOST:8786": f"127.0.0.1:{port}", "8786": str(port),
            "8787": str(page), "$(nproc)": "1"}  # fmt: skip

    def adapted(text):
        for stated, used in here.items():
            text = text.replace(stated, used)
        return text

    def shell(*blocks):
        return ["bash", "-euc", f"PATH={BIN}:$PATH\n" + "\n".join(map(adapted, blocks))]

    subprocess.run(shell(create), check=True, capture_output=True, cwd=ROOT)
    other = write_certificate(tmp_path / "other").with_suffix(".pem")
    with (
        running(shell(read, scheduler), log=tmp_path / "scheduler.log") as first,
        running(shell(read, workers), log=tmp_path / "worker.log") as second,
    ):
        wait = f'python -c \'from distributed import Client; Client("tls://127.0.0.1:{port}", timeout="60s")'
        subprocess.run(shell(read, f"{wait}.wait_for_workers(1, timeout=120)'"), check=True, capture_output=True)
        found = open_to_anyone(ports_of(first.pid) | ports_of(second.pid), other_certificate=other)
        # Pages on the loopback interface.
        assert [one for one in found if not re.fullmatch(r"127\.0\.0\.1:\d+ without encryption: b'HTTP.*'", one)] == []
        options = f"--store {tmp_path}/store --dask-address tls://127.0.0.1:{port}"
        command = shell(read, f"affwild2 extract {tmp_path}/data {options}")
        extracted = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert extracted.returncode == 0, extracted.stderr
        refused = run_command("extract", tmp_path / "data", "--store", tmp_path / "other", *options.split()[2:])
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1, refused.stderr
