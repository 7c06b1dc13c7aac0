"""The unit, the compose file and the manifest: their syntax, and the commands that they run."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime.cli.serve import serve_command

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")

FOLDER = Path(__file__).parents[2] / "examples" / "serving"


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def check_command(command: list[str]) -> None:
    """The command line is one that the program takes."""
    assert command[0] == "serve"
    context = serve_command.make_context("serve", command[1:])
    assert context.params["host"] == "0.0.0.0"  # noqa: S104 - in a container, with a key
    assert context.params["api_key_file"] is not None
    assert context.params["sessions"] == Path("/sessions")


def test_the_compose_file() -> None:
    (compose,) = documents("compose.yaml")
    server = compose["services"]["rillet"]
    check_command(server["command"])
    assert {mount.partition(":")[0] for mount in server["volumes"]} >= set(compose["volumes"])
    assert set(server["secrets"]) == set(compose["secrets"])
    proxy = compose["configs"]["balancer"]["content"]
    assert proxy.count("{") == proxy.count("}")
    assert "proxy_buffering off" in proxy
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["balancer"]["ports"])


def test_the_kubernetes_manifest() -> None:
    claim, deployment, service = documents("kubernetes.yaml")
    kinds = [document["kind"] for document in (claim, deployment, service)]
    assert kinds == ["PersistentVolumeClaim", "Deployment", "Service"]
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    check_command(container["args"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["spec"]["volumes"]
    }
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    (port,) = container["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["containerPort"]
    names = [volume.get("persistentVolumeClaim", {}) for volume in pod["spec"]["volumes"]]
    assert {"claimName": claim["metadata"]["name"]} in names


def test_the_systemd_unit() -> None:
    unit = configparser.ConfigParser()
    unit.read(FOLDER / "rillet.service")
    program, *command = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/bin/rillet")
    context = serve_command.make_context("serve", command[1:])
    assert context.params["host"] == "127.0.0.1"  # without a key
    folder = "/var/lib/" + unit["Service"]["StateDirectory"]
    assert context.params["sessions"] == Path(folder)
    assert unit["Service"]["SuccessExitStatus"] == "143"  # of SIGTERM
