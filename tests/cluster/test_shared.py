"""What hosts of a cluster must have in common with the search: code, versions, storage and data; real hosts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from macil.data.store.feature_store import FeatureStore
from tests.cluster.lab import DRIVER, PORT, Host, Lab, what_is_missing
from tests.cluster.searching import SMALL, small_store
from tests.support.promise import assert_replays, assert_whole
from tests.support.s3 import CREDENTIALS
from tune.cluster.host_check import versions_here

_MISSING = what_is_missing()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.nightly,
    pytest.mark.timeout(900),
    pytest.mark.skipif(_MISSING is not None, reason=f"no hosts of namespaces: {_MISSING}"),
]
TWO = [*SMALL, "--trials", "4", "--epochs", "3", "--cpus-per-trial", "1", "--name", "run"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.delenv("MACIL_CACHE", raising=False)  # each host's own, in its home
    with Lab(tmp_path / "lab") as made:
        yield made


def search(head: Host, *arguments: str) -> tuple[int, str]:
    log = head.lab.folder / "search.log"
    process = head.start(
        sys.executable, DRIVER, *TWO, "--address", f"{head.address}:{PORT}", *arguments, log=log
    )
    code = process.wait(timeout=600)
    output = log.read_text()
    assert "Traceback" not in output, output
    return code, output


def test_a_folder_that_only_the_head_has_is_refused_by_the_host_that_does_not_see_it(lab: Lab) -> None:
    head, _ = lab.cluster("head", "left", head_cpus=0)
    # Each host has a /dev/shm of its own.
    code, output = search(
        head, "--data", str(small_store(lab)), "--storage", "/dev/shm/runs", "--shared-storage"
    )
    assert code == 1, output
    assert "error: host left does not share the run's folder: /dev/shm/runs/run/.shared" in output
    assert "No such file" in output


def test_a_host_with_another_version_is_refused_by_name(lab: Lab, tmp_path: Path) -> None:
    head = lab.host("head")
    lab.bring_up(head, cpus=0)
    left = lab.host("left")
    fake = tmp_path / "site/numpy-0.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    lab.environment["PYTHONPATH"] = str(fake.parent)
    lab.bring_up(left, head=head)
    del lab.environment["PYTHONPATH"]
    storage = ["--data", str(small_store(lab)), "--storage", str(lab.shared / "runs"), "--shared-storage"]
    code, output = search(head, *storage)
    assert code == 1, output
    expected = f"numpy 0.0.1 on left, {versions_here()['numpy']} in the search"
    assert f"error: host left has other versions than the search: {expected}" in output
    assert "0/4 done" in output or "done" not in output


@contextlib.contextmanager
def server_on(host: Host) -> Iterator[str]:
    """moto's S3 on a host of the lab, as its network sees it."""
    log = host.lab.folder / "moto.log"
    with log.open("ab") as output:
        inside = [str(Path(__file__).with_name("hosts.sh")), "in_host", host.name]
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", "5000"],
            env=host.lab.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        host.lab.started.append(process)
    yield f"http://{host.address}:5000"


def test_runs_and_data_in_a_bucket_that_every_host_reaches(lab: Lab, tmp_path: Path) -> None:
    store = FeatureStore.open(small_store(lab))
    cloud = lab.host("cloud")
    with server_on(cloud) as endpoint:
        lab.environment |= CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}
        fill = (
            "import sys\nfrom pathlib import Path\nfrom macil.io.remote import Remote\n"
            "from tests.support.s3 import make_bucket\n"
            f"remote = Remote(make_bucket({endpoint!r}, 'lab') + '/xd.store')\n"
            "for file in Path(sys.argv[1]).iterdir():\n    remote.upload(file, file.name)\n"
        )
        head, left, right = lab.cluster("head", "left", "right", head_cpus=0)
        root = str(Path(DRIVER).parent.parent)
        time.sleep(2)
        filled = head.start(
            "env",
            f"PYTHONPATH={root}",
            sys.executable,
            "-c",
            fill,
            str(store.path),
            log=lab.folder / "fill.log",
        )
        assert filled.wait(timeout=120) == 0, lab.logs()
        code, output = search(head, "--data", "s3://lab/xd.store", "--storage", "s3://lab/runs")
        assert code == 0, output
        assert "run     s3://lab/runs/run, where all of this lies too" in output
        for host in (head, left, right):
            home = lab.folder / "hosts" / host.name / "home"
            copies = list((home / ".cache/macil/staged").iterdir())
            assert len(copies) == 1, f"{host.name}: one copy"
            assert FeatureStore.open(copies[0]).content_hash == store.content_hash
        assert "copying s3://lab/xd.store to this host's disk" in output
        fetch = (
            "import sys\nfrom pathlib import Path\nfrom macil.io.remote import Remote\n"
            "from tune.storage.location import copy_run\ncopy_run(Remote('s3://lab/runs/run'), Path(sys.argv[1]))\n"
        )
        copy = tmp_path / "copy"
        fetched = head.start(
            "env", f"PYTHONPATH={root}", sys.executable, "-c", fetch, str(copy), log=lab.folder / "fetch.log"
        )
        assert fetched.wait(timeout=120) == 0, lab.logs()
    assert_whole(copy, 4)
    assert_replays(copy, store)
