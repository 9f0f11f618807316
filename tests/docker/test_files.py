"""What can be told of docker/ without a container engine.

Not checked here: that images can be pulled and built, and KubeRay's own fields of the RayJob, whose
schema no package brings along.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from afi_search.cli.main import app
from afi_search.engine.metrics import METRICS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
KUBERNETES = "1.33"
SCRIPTS = Path(sysconfig.get_path("scripts"))


def read_yaml(name: str) -> Any:
    return YAML(typ="safe").load(DOCKER / name)


def passes(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def services() -> dict[str, Any]:
    """The services of compose.yaml, with what they inherit."""
    found: dict[str, Any] = read_yaml("compose.yaml")["services"]
    return found


def test_the_dockerfile_has_no_lint() -> None:
    passes(SCRIPTS / "hadolint", DOCKER / "Dockerfile")


def test_what_is_compiled_outlives_the_containers() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    kept = json.loads(re.findall(r"^VOLUME (.+)$", text, re.MULTILINE)[0])

    for name in ("TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
        (place,) = re.findall(rf"\b{name}=(\S+)", text)
        assert any(Path(place).is_relative_to(volume) for volume in kept)
    workers = [services()[name] for name in ("gpu-worker", "cpu-worker")]
    assert all("studies:/studies" in worker["volumes"] for worker in workers)


def test_the_dockerfile_copies_what_is_there_and_nothing_is_kept_from_it() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    let_through = re.findall(r"^!(\S+)", (DOCKER / "Dockerfile.dockerignore").read_text(), re.M)
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / source).exists() for source in copied)


def test_the_dockerfile_installs_extras_that_there_are() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    wanted = re.findall(r"pip install '\.\[([\w,]+)\]'", text)
    assert wanted
    assert set(",".join(wanted).split(",")) <= set(extras)


def test_the_dockerfiles_empty_package_can_be_built(tmp_path: Path) -> None:
    """The dependencies are installed for it, before the sources come."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    (made,) = re.findall(r"(mkdir afi_search .*?) && if ", text)
    built = f"{sys.executable} -m pip wheel --quiet --no-deps --wheel-dir wheel ."
    done = subprocess.run(
        ["bash", "-euc", f"{made} && {built}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "wheel").glob("afi_search-*.whl"))


def test_images_are_pinned_and_run_without_root() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    bases = re.findall(r"^FROM ([^$\s]+)", text, re.MULTILINE)
    theirs = [s["image"] for s in services().values() if "build" not in s]
    for image in (*bases, *theirs):
        assert re.search(r":v?\d+\.\d+", image), f"{image} has no version"
    assert re.findall(r"^USER (\d+):", text, re.MULTILINE) == ["10001"]


def test_compose_keeps_its_schema() -> None:
    passes(
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        DOCKER / "compose.yaml",
    )


@pytest.mark.parametrize("name", sorted(services()))
def test_services_drop_privileges_and_stay_on_loopback(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not service.get("privileged")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_compose_names_nothing_that_is_not_there() -> None:
    compose = read_yaml("compose.yaml")
    for name, service in services().items():
        assert set(service.get("secrets", ())) <= set(compose["secrets"]), name
        assert set(service["networks"]) <= set(compose["networks"]), name
        assert set(service.get("depends_on", ())) <= set(services()), name
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            there = (DOCKER / source).exists() if source[0] == "." else source in compose["volumes"]
            assert there, f"{name}: {source}"


def test_secrets_are_files_that_a_script_draws_and_git_ignores() -> None:
    drawn = re.search(r"for name in (.+); do", (DOCKER / "make-secrets.sh").read_text())
    assert drawn is not None
    secrets = read_yaml("compose.yaml")["secrets"]
    assert set(drawn[1].split()) == set(secrets)
    assert {secret["file"] for secret in secrets.values()} == {
        f"./secrets/{name}" for name in secrets
    }
    assert (DOCKER / "secrets" / ".gitignore").read_text().splitlines()[1:] == ["*", "!.gitignore"]


def test_ray_asks_for_its_token() -> None:
    assert "RAY_AUTH_MODE=token" in (DOCKER / "Dockerfile").read_text()
    for name in ("head", "gpu-worker", "cpu-worker"):
        service = services()[name]
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert "ray_token" in service["secrets"]
    assert read_yaml("rayjob.yaml")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "RAY_AUTH_MODE=token" in (DOCKER / "slurm.sh").read_text()


def test_ray_is_started_with_options_that_it_knows() -> None:
    known = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = "".join((DOCKER / name).read_text() for name in ("compose.yaml", "slurm.sh"))
    commands = [s["command"] for s in services().values() if s.get("command", [""])[0] == "ray"]
    options = {o.split("=")[0] for command in commands for o in command[2:]}
    options |= set(re.findall(r"ray start (--\S+)", text))
    for group in rayjob_groups():
        options |= {f"--{key}" for key in group["rayStartParams"]}
    assert options
    for option in options:
        assert option.split("=")[0] in known, option


def test_searches_are_started_with_options_that_there_are() -> None:
    known = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    entrypoint = read_yaml("rayjob.yaml")["spec"]["entrypoint"]
    page = (ROOT / "docs/cluster.md").read_text()
    started = [entrypoint, *re.findall(r"python -m afi_search\.run(?:[^\n]|(?<=\\)\n)+", page)]
    assert len(started) > 1
    for command in started:
        for option in re.findall(r"(?<=\s)--[a-z-]+", command.split("afi_search.cli.run")[-1]):
            assert option in known, option
        for space in re.findall(r"spaces/\S+\.yaml", command):
            assert (ROOT / space).is_file()


def rayjob_groups() -> list[dict[str, Any]]:
    cluster = read_yaml("rayjob.yaml")["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pod_templates() -> Iterator[dict[str, Any]]:
    yield read_yaml("rayjob.yaml")["spec"]["submitterPodTemplate"]
    for group in rayjob_groups():
        yield group["template"]


def test_pods_keep_kubernetes_schema_and_drop_privileges() -> None:
    for number, template in enumerate(pod_templates()):
        metadata = {"name": f"pod{number}", **template.get("metadata", {})}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_prometheus_takes_its_configuration() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    passes("promtool", "check", "config", DOCKER / "prometheus.yml")


def test_prometheus_looks_where_ray_shows_its_metrics() -> None:
    (job,) = read_yaml("prometheus.yml")["scrape_configs"]
    (lookup,) = job["dns_sd_configs"]
    nodes = [n for n, s in services().items() if s.get("command", [""])[0] == "ray"]
    assert sorted(lookup["names"]) == sorted(nodes)
    for name in nodes:
        assert f"--metrics-export-port={lookup['port']}" in services()[name]["command"]


def test_grafana_shows_every_metric_and_no_other() -> None:
    board = json.loads((DOCKER / "grafana/dashboards/afi_search.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries.append(board["templating"]["list"][0]["query"]["query"])
    drawn = {name for query in queries for name in re.findall(r"ray_\w+", query)}
    assert drawn == {f"ray_{name}" for name in METRICS}
    labels = {label for query in queries for label in re.findall(r"by \(([\w, ]+)\)", query)}
    known = {"study", *(tag for metric in METRICS.values() for tag in metric.tags)}
    assert {label for group in labels for label in group.split(", ")} <= known


def test_grafana_draws_from_the_source_that_it_is_given() -> None:
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    text = (DOCKER / "grafana/dashboards/afi_search.json").read_text()
    board = json.loads(text)
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read_yaml("grafana/provisioning/dashboards/afi_search.yaml")["providers"]
    mounted = {volume.split(":")[1] for volume in services()["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounted


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "slurm.sh"), ("sh", "with-secrets.sh"), ("sh", "make-secrets.sh")]
)
def test_scripts_are_whole(shell: str, name: str) -> None:
    passes(shell, "-n", DOCKER / name)


def test_the_secrets_script_draws_what_is_missing_only(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    script = shutil.copy(DOCKER / "make-secrets.sh", tmp_path)
    passes("sh", script)
    token = (tmp_path / "secrets/ray_token").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    passes("sh", script)
    assert (tmp_path / "secrets/ray_token").read_text() == token


def test_a_command_gets_the_password_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of the ledger")
    done = subprocess.run(
        [DOCKER / "with-secrets.sh", "sh", "-c", 'printf %s "$PGPASSWORD"'],
        env={"PGPASSWORD_FILE": str(tmp_path / "password"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "of the ledger"


def test_the_page_names_every_metric_as_it_is() -> None:
    text = (ROOT / "docs/monitoring.md").read_text()
    for name, metric in METRICS.items():
        assert f"| `ray_{name}` |" in text
        assert f"| {metric.meaning} |" in text
