"""The Helm chart: linted and rendered by Helm itself, its objects checked against the schemas of Kubernetes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from callboard import __version__
from callboard.actors.configuration import ReadResult, Settings
from callboard.actors.journal import KINDS as EVENTS
from callboard.actors.operations import METRICS

from .conftest import CHECKOUT, DEPLOY, Parse

# Helm itself as a library; there is none for Linux on other processors than these.
helm = pytest.importorskip("helm_python")

CHART = DEPLOY / "helm" / "callboard"
TOKEN = {"operations": {"token": "sixteen letters!"}}
EVERYTHING: dict[str, Any] = {
    **TOKEN,
    "autoscaling": {"enabled": True},
    "certificatesSecret": "authorities",
    "config": {
        "elasticsearch": {"ca_certs": "/certificates/ca.crt", "api_key": "abc"},
        "service": {"service_types": ["s3"]},
    },
    "extraction": {"enabled": True},
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"disk": "fast"},
    "podDisruptionBudget": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
}
KINDS = {
    "smallest": TOKEN,
    "everything": EVERYTHING,
    "own secret": {"existingSecret": "mine", "serviceMonitor": {"enabled": True}},
    "autoscaling without KEDA": {**TOKEN, "autoscaling": {"enabled": True, "kind": "hpa"}},
}
OPERATORS = {"ScaledObject": "keda.sh/v1alpha1", "ServiceMonitor": "monitoring.coreos.com/v1"}
"""Kinds that operators add, whose schemas are not those of Kubernetes."""
KUBERNETES = ("1.25", "1.35")


def render(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="demo", namespace="stage")
    for name, text in files.items():
        if name.endswith(".yaml"):
            yield from (one for one in yaml.safe_load_all(text) if one)


def one(values: dict[str, Any], kind: str, name: str = "demo-callboard") -> dict[str, Any]:
    (found,) = (each for each in render(values) if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS.keys())
def test_helm_finds_nothing_wrong(values: dict[str, Any]) -> None:
    report = helm.lint(CHART, values, strict=True)
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS.keys())
def test_every_object_is_one_that_kubernetes_takes(values: dict[str, Any]) -> None:
    objects = list(render(values))
    assert {each["kind"] for each in objects} >= {"Deployment", "Service", "ServiceAccount"}
    for each in objects:
        if each["kind"] in OPERATORS:
            assert each["apiVersion"] == OPERATORS[each["kind"]]
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(each, version, strict=True)


def test_an_object_that_kubernetes_does_not_take_is_found() -> None:
    broken = one(TOKEN, "Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["htpGet"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[1], strict=True)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"operations": {"token": "short"}},
        {**TOKEN, "replicas": 3},
        {**TOKEN, "autoscaling": {"kind": "magic"}},
        {**TOKEN, "temporarySize": "large"},
    ],
    ids=["no token", "short token", "unknown value", "unknown scaler", "no size"],
)
def test_values_that_cannot_work_are_refused(values: dict[str, Any]) -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmValuesError):
        chart.validate_schema(values)


def test_the_configuration_that_it_writes_can_be_used(accepted: Callable[[dict[str, Any]], ReadResult]) -> None:
    for values in (TOKEN, EVERYTHING):
        secret = one(values, "Secret")["stringData"]
        operations = accepted(yaml.safe_load(secret["config.yml"])).settings.callboard.operations
        assert (operations.enabled, operations.host) == (True, "0.0.0.0")
        assert operations.token == secret["operations-token"] == TOKEN["operations"]["token"]
        assert (
            operations.port
            == one(values, "Service")["spec"]["ports"][0]["port"]
            == Settings().callboard.operations.port
        )


def test_its_containers_are_locked_down_and_their_commands_exist(parses: Parse) -> None:
    for name in ("demo-callboard", "demo-callboard-extraction"):
        pod = one(EVERYTHING, "Deployment", name)["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        parses(container["args"])
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"/tmp", "/var/lib/callboard"}
        assert "env" not in container, "secrets come from files"


def test_probes_and_pauses_fit_the_service() -> None:
    spec = one(TOKEN, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    starting = container["startupProbe"]
    assert starting["periodSeconds"] * starting["failureThreshold"] > Settings().elasticsearch.max_wait_duration
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert spec["terminationGracePeriodSeconds"] > Settings().callboard.shutdown_seconds


def test_it_scales_by_metrics_that_are_served() -> None:
    served = {metric.name for metric in METRICS}
    query = one(EVERYTHING, "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    named = set(re.findall(r"callboard_\w+", query))
    assert named == {"callboard_jobs_waiting", "callboard_jobs_running"}
    assert named <= served
    assert 'job="demo-callboard"' in query, "Prometheus names the job after the Service"
    assert one(EVERYTHING, "Service")["metadata"]["name"] == "demo-callboard"
    assert "replicas" not in one(EVERYTHING, "Deployment")["spec"], "the scaler decides"
    scaler = one(KINDS["autoscaling without KEDA"], "HorizontalPodAutoscaler")["spec"]
    assert scaler["metrics"][0]["external"]["metric"]["name"] == "callboard_work"


def test_another_configuration_starts_the_pods_anew() -> None:
    def mark(values: dict[str, Any]) -> str:
        annotations: dict[str, str] = one(values, "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return annotations["checksum/config"]

    assert mark(TOKEN) != mark({"operations": {"token": "another sixteen letters"}})
    assert mark(TOKEN) == mark(TOKEN)


def test_prometheus_presents_the_token_from_the_same_secret() -> None:
    for values, name in ((EVERYTHING, "demo-callboard"), (KINDS["own secret"], "mine")):
        (endpoint,) = one(values, "ServiceMonitor")["spec"]["endpoints"]
        assert endpoint["authorization"]["credentials"] == {"name": name, "key": "operations-token"}


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == __version__
    assert chart["version"] == __version__
    assert "dynamic" in tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_values_that_the_page_shows_can_be_used(accepted: Callable[[dict[str, Any]], ReadResult]) -> None:
    page = (CHECKOUT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (shown,) = (text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if text.startswith("image:"))
    values = yaml.safe_load(shown)
    assert helm.lint(CHART, values, strict=True)["errors"] == []
    settings = accepted(yaml.safe_load(one(values, "Secret")["stringData"]["config.yml"])).settings
    assert settings.service.max_concurrent_content_syncs == 2
    mounts = one(values, "Deployment")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert str(settings.elasticsearch.ca_certs).startswith(tuple(mount["mountPath"] for mount in mounts))


def test_the_scalers_ask_what_the_page_says() -> None:
    page = (CHECKOUT / "docs" / "deployment.md").read_text(encoding="utf-8")
    query = one(EVERYTHING, "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    assert f"    {re.sub(r'{[^}]*}', '', query)}\n" in page
    assert "name: {as: callboard_work}" in page


def test_every_alert_asks_for_what_is_served_and_names_a_page() -> None:
    alerts = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    production = (CHECKOUT / "docs" / "production.md").read_text(encoding="utf-8")
    served = {metric.name: metric for metric in METRICS}
    kinds = {event.kind for event in EVENTS.values()}
    for alert in alerts:
        expression = alert["expr"]
        (name,) = re.findall(r"callboard_\w+", expression)
        for label, value in re.findall(r'(\w+)="(\w+)"', expression):
            assert label in served[name].labels, expression
            assert label != "kind" or value in kinds, expression
        assert served[name].kind == ("counter" if "increase(" in expression else "gauge"), expression
        assert (CHECKOUT / alert["annotations"]["page"]).exists()
        assert f"`{expression}`" in production, "the page has every alert"
    rows = [line for line in production.splitlines() if line.startswith("|") and "callboard_" in line.split("|")[2]]
    assert len(alerts) == len(rows)


def test_the_dashboard_shows_metrics_that_are_served() -> None:
    text = (DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8")
    served = {metric.name for metric in METRICS}
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"callboard_[a-z_]+", text)}
    assert named
    assert named <= served
