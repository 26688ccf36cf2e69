"""The compose stack: a valid file, hardened, without secrets in the open, and made of what the product knows."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from callboard.actors.configuration import ReadResult, Settings
from callboard.actors.preflight import CLUSTER_PRIVILEGES, CONTENT_PRIVILEGES, INDEX_PRIVILEGES, OWN_INDICES
from callboard.protocol.indices import CONNECTORS_INDEX, JOBS_INDEX

from .conftest import DEPLOY, SECRETLY, Parse

FILE = DEPLOY / "compose.yml"
OURS = ("callboard", "extraction")


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    """The file as compose reads it, variables taken at their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text(encoding="utf-8"))
    assert "${" not in text, "every variable has a default"
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `deploy/prepare` that has run, as the user that the containers run as."""
    folder = tmp_path_factory.mktemp("prepared")
    script = (DEPLOY / "prepare").read_text(encoding="utf-8")
    (folder / "prepare").write_text(script.replace("user=1000\n", f"user={os.getuid()}\n"))
    run(folder)
    return folder


def run(folder: Path, **environment: str) -> str:
    clean = {"PATH": os.environ["PATH"], **environment}
    command = ["sh", str(folder / "prepare")]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=True).stdout


def test_the_file_keeps_to_the_compose_specification(stack: dict[str, Any]) -> None:
    parsed = PyCompose.from_yaml(yaml.safe_dump(stack))
    assert set(parsed.service_names()) == {"elasticsearch", "users", "kibana", "callboard", "extraction"}
    with pytest.raises(ValueError, match="stop_grace_period"):
        PyCompose.from_yaml(yaml.safe_dump(stack).replace("stop_grace_period: 45s", "stop_grace_period: soon"))


def test_it_is_the_stack_that_people_know(stack: dict[str, Any]) -> None:
    services = stack["services"]
    assert "elastic" in stack["networks"]
    assert "conn-es-data" in stack["volumes"]
    assert [one.rpartition(":")[0].rpartition(":")[2] for name in ("elasticsearch", "kibana", "callboard") for one in services[name]["ports"]] == [
        "9200", "5601", str(Settings().callboard.operations.port),
    ]  # fmt: skip
    text = FILE.read_text(encoding="utf-8")
    assert {"ELASTICSEARCH_VERSION", "KIBANA_VERSION", "CALLBOARD_VERSION"} <= set(re.findall(r"\$\{(\w+)", text))
    assert services["elasticsearch"]["environment"]["xpack.security.enabled"] == "true"
    assert services["extraction"]["profiles"] == ["extraction"]


def test_nothing_is_open_to_the_network_around(stack: dict[str, Any]) -> None:
    for service in stack["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_what_runs_for_long_has_a_health_check_and_waits_for_the_health_of_others(stack: dict[str, Any]) -> None:
    services = stack["services"]
    for name, service in services.items():
        if name != "users":
            assert service["healthcheck"]["test"], name
    assert services["users"]["depends_on"] == {"elasticsearch": {"condition": "service_healthy"}}
    for name in ("kibana", "callboard"):
        assert services[name]["depends_on"] == {"users": {"condition": "service_completed_successfully"}}


def test_our_containers_can_write_nothing_but_temporary_folders(stack: dict[str, Any]) -> None:
    for name in OURS:
        service = stack["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["user"].split(":")[0] != "0"
        assert "volumes" not in service
        assert {one.split(":")[0] for one in service["tmpfs"]} == {"/tmp", "/var/lib/callboard"}
    assert all("no-new-privileges:true" in one["security_opt"] for one in stack["services"].values())


def test_no_secret_stands_in_an_environment_or_command(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        for key in service.get("environment", {}):
            assert not SECRETLY.search(key) or key.endswith("_FILE") or key == "SECRETS", (name, key)
        assert not SECRETLY.search(json.dumps(service.get("command", "")))


def test_commands_exist(stack: dict[str, Any], parses: Parse) -> None:
    for name in OURS:
        parses(stack["services"][name]["command"])
    command = stack["services"]["extraction"]["command"]
    assert f":{command[command.index('--port') + 1]}/" in " ".join(
        stack["services"]["extraction"]["healthcheck"]["test"]
    )
    grace = stack["services"]["callboard"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings().callboard.shutdown_seconds


def test_every_secret_that_is_mounted_is_made(stack: dict[str, Any], prepared: Path) -> None:
    for one in stack["secrets"].values():
        path = prepared / one["file"]
        assert path.stat().st_size > 0
        assert path.stat().st_mode & 0o777 == 0o600
    used = [
        one["source"] if isinstance(one, dict) else one
        for service in stack["services"].values()
        for one in service.get("secrets", [])
    ]
    assert set(used) == set(stack["secrets"])


def test_the_configuration_that_is_made_can_be_used(
    prepared: Path, stack: dict[str, Any], accepted: Callable[[dict[str, Any]], ReadResult]
) -> None:
    made = (prepared / "secrets" / "config.yml").read_text(encoding="utf-8")
    for text in (made, made.replace("# extraction_service", "extraction_service")):
        settings = accepted(yaml.safe_load(text)).settings
        assert settings.elasticsearch.host == "http://elasticsearch:9200"
        assert settings.elasticsearch.password == (prepared / "secrets" / "callboard_password").read_text()
        assert settings.callboard.operations.token == (prepared / "secrets" / "operations_token").read_text()
        assert settings.callboard.operations.host == "0.0.0.0"
    assert settings.extraction_service.host == "http://extraction:8090"
    kibana = yaml.safe_load((prepared / "secrets" / "kibana.yml").read_text(encoding="utf-8"))
    assert kibana["elasticsearch.password"] == (prepared / "secrets" / "kibana_password").read_text()
    assert all(len(value) >= 32 for key, value in kibana.items() if key.endswith("encryptionKey"))


def test_the_kinds_of_sources_that_it_works_on_exist(prepared: Path) -> None:
    from callboard.sources.registry import service_types

    there = {info.service_type for info in service_types()}
    wanted = yaml.safe_load((prepared / "secrets" / "config.yml").read_text(encoding="utf-8"))["service"][
        "service_types"
    ]
    assert set(wanted) <= there


def test_preparing_again_keeps_every_secret(prepared: Path) -> None:
    before = {path.name: path.read_text() for path in (prepared / "secrets").iterdir()}
    assert run(prepared) == ""
    assert {path.name: path.read_text() for path in (prepared / "secrets").iterdir()} == before
    assert len(set(before.values())) == len(before)


def test_a_password_of_ones_own_is_taken(tmp_path: Path) -> None:
    script = (DEPLOY / "prepare").read_text(encoding="utf-8")
    (tmp_path / "prepare").write_text(script.replace("user=1000\n", f"user={os.getuid()}\n"))
    run(tmp_path, ELASTIC_PASSWORD="open sesame")
    assert (tmp_path / "secrets" / "elastic_password").read_text() == "open sesame"


def test_the_role_may_do_what_the_start_up_check_asks_for() -> None:
    role = json.loads((DEPLOY / "callboard-role.json").read_text(encoding="utf-8"))
    assert tuple(role["cluster"]) == CLUSTER_PRIVILEGES
    own, content = role["indices"]
    # The indices of the protocol are used by their names and by their aliases.
    for name in (CONNECTORS_INDEX, JOBS_INDEX, CONNECTORS_INDEX.removesuffix("-v1"), JOBS_INDEX.removesuffix("-v1")):
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in own["names"]), name
    assert OWN_INDICES in own["names"]
    assert tuple(own["privileges"]) == INDEX_PRIVILEGES
    assert own["allow_restricted_indices"] is True
    assert tuple(content["privileges"]) == CONTENT_PRIVILEGES


def test_the_script_of_users_asks_elasticsearch_in_order(tmp_path: Path) -> None:
    """Run it with a `curl` that writes down what it is asked for."""
    for name in ("elastic", "kibana", "callboard"):
        (tmp_path / f"{name}_password").write_text('say "no\\"' if name == "elastic" else f"{name}'s")
    pretended = tmp_path / "curl"
    pretended.write_text(
        '#!/bin/bash\nfor word; do [[ $previous == --config ]] && config=$(<"$word"); previous=$word; done\n'
        'printf "%s %s %s " "$@" >> "$ASKED"; printf "| %s | " "$config" >> "$ASKED"; cat >> "$ASKED"; echo >> "$ASKED"\n'
    )
    pretended.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "ELASTICSEARCH": "http://es:9200", "SECRETS": str(tmp_path),
        "ROLE": str(DEPLOY / "callboard-role.json"), "ASKED": str(tmp_path / "asked"),
    }  # fmt: skip
    done = subprocess.run(["bash", DEPLOY / "users.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text()
    assert re.findall(r"--request (\w+)", asked) == ["POST", "PUT", "PUT"]
    assert re.findall(r"http://es:9200(\S+)", asked) == [
        "/_security/user/kibana_system/_password", "/_security/role/callboard", "/_security/user/callboard",
    ]  # fmt: skip
    assert asked.count(r'user = "elastic:say \"no\\\""') == 3, "as curl's configuration files want it"
    assert '{"password": "callboard\'s", "roles": ["callboard"]}' in asked
