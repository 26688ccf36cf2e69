"""Secrets never reach a log, a document or the end of the program, whatever way they come in and whatever goes wrong."""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

CANARIES = {
    "password": "canary-password-4711",
    "api_key": base64.b64encode(b"canary-id:canary-key-4712").decode(),
    "connector_key": base64.b64encode(b"other-id:canary-key-4713").decode(),
    "header": "canary-header-4714",
    "token": "canary-token-4715",
    "environment": "canary-environment-4716",
    "field": "canary-field-4717",
    "url": "canary-url-4718",
}
SOURCE = """
import attrs
from callboard.protocol.configuration import setting
from callboard.sources.source import Document, Failure, Source

@attrs.frozen
class Config:
    secret: str = setting("Secret", default="", sensitive=True)
    address: str = setting("Address", default="")
    fault: str = setting("Fault", default="-")

class Props(Source):
    service_type = "props"
    name = "Props"
    Config = Config

    def _fail(self, at):
        if self.config.fault == at:
            raise RuntimeError(f"cannot log in with {self.config.secret} at {self.config.address}: {self.config!r}")

    async def ping(self):
        self._fail("ping")

    async def documents(self, partition, checkpoint=None):
        self._fail("documents")
        if self.config.fault == "item":
            why = f"cannot read it with {self.config.secret} at {self.config.address}"
            yield [Failure("item", "curtain", why, document_id="curtain")]
        yield [Document("lamp", {"number": 1})]
"""


def until(look: Any, seconds: float = 30) -> Any:
    """Look until it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that in time")


def ask(url: str, method: str, path: str, body: Any = None) -> Any:
    import json

    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("form", [[], ["--filebeat"]])
def test_no_secret_is_ever_logged(callboard: Any, tmp_path: Path, form: list[str]) -> None:
    node = callboard.start("node", "--port", "0")
    url = next(word for word in node.stdout.readline().split() if word.startswith("http://"))
    (tmp_path / "props_source.py").write_text(SOURCE)
    names = ("good", "ping", "documents", "item")
    for name in names:
        ask(url, "PUT", f"/_connector/{name}", {"index_name": f"props-{name}", "service_type": "props"})
        configuration = {
            "secret": {"value": CANARIES["field"], "type": "str", "sensitive": True},
            "address": {"value": f"https://me:{CANARIES['url']}@stage.example/", "type": "str"},
            "fault": {"value": name, "type": "str"},
        }
        document = {"configuration": configuration, "status": "configured"}
        ask(url, "POST", f"/.elastic-connectors/_update/{name}?refresh=true", {"doc": document})
    content = {
        "connectors": [{"connector_id": name} for name in names],
        "elasticsearch": {
            "host": url,
            "username": "elastic",
            "password": CANARIES["password"],
            "headers": {"x-stage": CANARIES["header"], "x-other": "${STAGE_SECRET}"},
            "log_level": "DEBUG",
        },
        "sources": {"props": "props_source:Props"},
        "service.idling": 0.3,
        "callboard.text_extraction.engine": "plain",
        "callboard.operations.token": CANARIES["token"],
    }
    (tmp_path / "config.yml").write_text(yaml.safe_dump(content))
    log = tmp_path / "service.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "callboard", "service", "-c", "config.yml", "--debug", *form],
            cwd=tmp_path,
            env=callboard.environment(PYTHONPATH=str(tmp_path), STAGE_SECRET=CANARIES["environment"]),
            stdout=out,
            stderr=out,
        )
    callboard.started.append(process)
    until(lambda: "service.ready" in log.read_text())
    jobs = [ask(url, "POST", "/_connector/_sync_job", {"id": name, "job_type": "full"})["id"] for name in names]

    def job(job_id: str) -> Any:
        return ask(url, "GET", f"/.elastic-connectors-sync-jobs/_doc/{job_id}")["_source"]

    def have_ended() -> bool:
        return all(job(one)["status"] in ("completed", "error") for one in jobs)

    until(have_ended)
    until(lambda: ask(url, "GET", "/.elastic-connectors/_doc/ping")["_source"]["status"] == "error")
    (tmp_path / "config.yml").write_text(yaml.safe_dump({**content, "service.idling": CANARIES["password"]}))
    process.send_signal(signal.SIGHUP)
    until(lambda: "service.not_reloaded" in log.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    text = log.read_text()
    found = [kind for kind, canary in CANARIES.items() if canary in text]
    assert found == [], [line for line in text.splitlines() for kind in found if CANARIES[kind] in line][:3]
    # What people see in Kibana is no place for them either.
    errors = [str(job(one).get("error")) for one in jobs]
    errors += [str(ask(url, "GET", f"/.elastic-connectors/_doc/{name}")["_source"].get("error")) for name in names]
    assert any("cannot log in" in error for error in errors)
    assert [error for error in errors for canary in CANARIES.values() if canary in error] == []
    kept = {
        index: str(ask(url, "GET", f"/{index}/_search?size=1000")["hits"]["hits"])
        for index in (".callboard-dead-letters", ".callboard-journal")
    }
    assert all("cannot read it with ********" in text for text in kept.values()), kept
    assert [(index, kind) for index, text in kept.items() for kind, canary in CANARIES.items() if canary in text] == []


@pytest.mark.parametrize(
    "content",
    [
        {"elasticsearch": {"host": f"http://me:{CANARIES['url']}@127.0.0.1:9", "max_wait_duration": 0}},
        {"elasticsearch": {"api_key": CANARIES["api_key"], "max_wait_duration": 0, "host": "http://127.0.0.1:9"}},
        {"elasticsearch": {"password": [CANARIES["password"]]}},
        {"elasticsearch": {"api_key": {"nested": CANARIES["api_key"]}}},
        {"connectors": [{"connector_id": "one", "api_key": [CANARIES["connector_key"]]}]},
        {
            "connectors": [{"connector_id": "one", "api_kee": CANARIES["connector_key"]}],
            "elasticsearch": {"host": "http://127.0.0.1:9", "max_wait_duration": 0},
        },
    ],
)
def test_what_cannot_begin_tells_no_secret(callboard: Any, tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"connectors": [{"connector_id": "one"}], **content}))
    for arguments in (["service", "-c"], ["config", "check", "-c"], ["config", "show", "-c"], ["doctor", "-c"]):
        done = callboard(*arguments, tmp_path / "config.yml")
        told = done.out + done.err
        assert [kind for kind, canary in CANARIES.items() if canary in told] == [], (arguments, told)
