"""A real search with the services of docker/, started by hand on loopback."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from ruamel.yaml import YAML

from afi_search.engine.metrics import METRICS
from afi_search.study import Ledger
from tests.cli.test_run import SPACE, Driver
from tests.engine.test_metrics import ray_folder as ray_folder
from tests.study import postgresql

CONFIGURATION = Path(__file__).parents[2] / "docker" / "prometheus.yml"

NODES = "nodes.json"


@pytest.fixture
def database() -> Iterator[str]:
    with postgresql.server() as server:
        yield server.url


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus with the configuration of docker/, but Ray's nodes by file."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs Prometheus: apt-get install prometheus")
    yaml = YAML(typ="safe")
    settings = yaml.load(CONFIGURATION)
    settings["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (job,) = settings["scrape_configs"]
    del job["dns_sd_configs"]
    job["file_sd_configs"] = [{"files": [str(tmp_path / NODES)], "refresh_interval": "1s"}]
    yaml.dump(settings, tmp_path / "prometheus.yml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'metrics'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield address
    process.terminate()
    process.wait(30)


@pytest.mark.slow
def test_prometheus_scrapes_a_search_whose_ledger_is_in_postgresql(
    database: str, prometheus: str, ray_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE.replace("trials: 5", "trials: 100"))
    driver = Driver(tmp_path, "tiny.yaml", "--storage", database)
    driver.wait_for(r"trial 3 ")
    (told,) = ray_folder.glob("afi-*/ray/prom_metrics_service_discovery.json")
    (tmp_path / NODES).symlink_to(told.resolve())
    scraped: set[str] = set()
    deadline = time.monotonic() + 120
    while scraped != set(METRICS) and time.monotonic() < deadline:
        assert driver.process.poll() is None, driver.output
        scraped = {name for name in METRICS if query(prometheus, f"ray_{name}")}
        time.sleep(1)
    complete = query(prometheus, 'ray_afi_trials{state="complete"}')
    driver.process.send_signal(signal.SIGINT)

    assert driver.end() == 130, driver.output
    assert scraped == set(METRICS)
    records = Ledger.open(tmp_path / "studies" / "resnet20-digits").records()
    assert 0 < complete[0] <= (records["state"] == "complete").sum()


def query(prometheus: str, expression: str) -> list[float]:
    """Return the values that Prometheus has for an expression right now."""
    url = f"http://{prometheus}/api/v1/query?query={quote(expression)}"
    answer = json.loads(urlopen(url, timeout=10).read())
    return [float(series["value"][1]) for series in answer["data"]["result"]]
