"""The container image: linted, and its steps run as a script in a clean folder, up to a service that is healthy."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs
import httpx
import pytest
import trio
import yaml

from callboard.actors.configuration import Settings
from callboard.node import open_node

from .conftest import CHECKOUT, DEPLOY, SECRETLY, Parse, keys

DOCKERFILE = DEPLOY / "Dockerfile"


@attrs.frozen
class Step:
    """One instruction of a Dockerfile."""

    name: str
    text: str
    stage: int

    def words(self) -> list[str]:
        """The exec form of CMD and HEALTHCHECK."""
        found: list[str] = json.loads(self.text[self.text.index("[") :])
        return found


def steps() -> list[Step]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found, stage = [], 0
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        stage += name == "FROM"
        found.append(Step(name, " ".join(rest.split()), stage))
    return found


def last(name: str) -> Step:
    return [step for step in steps() if step.name == name][-1]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for step in steps() if step.name == "ENV" for pair in step.text.split())


def let_in(path: Path) -> bool:
    """Whether `.dockerignore` lets a file of the checkout into the build: the last matching line decides."""
    relative = path.relative_to(CHECKOUT)
    wanted = True
    for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, keep = line.removeprefix("!"), line.startswith("!")
        candidates = [relative, *relative.parents][:-1]
        names = [one.name for one in candidates] if pattern.startswith("**/") else [str(one) for one in candidates]
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            wanted = keep
    return wanted


def files_of_the_build() -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=CHECKOUT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode == 0:
        found = [CHECKOUT / name for name in filter(None, listed.stdout.split("\0"))]
    else:
        found = [path for path in CHECKOUT.rglob("*") if ".venv" not in path.parts and not path.is_dir()]
    yield from (path for path in found if (path.exists() or path.is_symlink()) and let_in(path))


def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_linter_can_find_something(tmp_path: Path) -> None:
    careless = DOCKERFILE.read_text(encoding="utf-8").replace("USER 10001:10001", "USER root")
    (tmp_path / "Dockerfile").write_text(careless)
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    assert subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True).returncode != 0


def test_it_runs_as_a_number_that_is_not_root_and_stops_in_order() -> None:
    user, _, group = last("USER").text.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert last("STOPSIGNAL").text == "SIGTERM"
    assert [step.name for step in steps()].index("USER") < [step.name for step in steps()].index("CMD")


def test_every_base_is_pinned_and_slim() -> None:
    (default,) = (
        step.text.partition("=")[2] for step in steps() if step.name == "ARG" and step.text.startswith("PYTHON")
    )
    assert re.fullmatch(r"3\.\d+-slim-\w+", default)
    assert {step.text.split()[0] for step in steps() if step.name == "FROM"} == {"python:${PYTHON}"}


def test_no_secret_is_baked_in_and_every_key_of_its_environment_exists() -> None:
    for step in steps():
        if step.name in ("ARG", "ENV"):
            assert not SECRETLY.search(step.text), step
    dotted = [name for name in environment() if "." in name]
    assert dotted
    assert set(dotted) <= keys()


def test_extras_of_the_build_exist() -> None:
    (default,) = (
        step.text.partition("=")[2] for step in steps() if step.name == "ARG" and step.text.startswith("EXTRAS")
    )
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert default in project["optional-dependencies"]
    named = re.findall(r"EXTRAS=([\w,]+)", DOCKERFILE.read_text(encoding="utf-8"))
    assert {one for names in named for one in names.split(",")} <= set(project["optional-dependencies"])


def test_commands_and_port_are_the_products(parses: Parse) -> None:
    parses(last("CMD").words())
    assert int(last("EXPOSE").text) == Settings().callboard.operations.port
    starts = re.search(r"--start-period=(\d+)m", last("HEALTHCHECK").text)
    assert starts is not None
    assert int(starts[1]) * 60 > Settings().elasticsearch.max_wait_duration


def test_the_build_sees_the_product_and_no_secrets_tests_or_history() -> None:
    names = {str(path.relative_to(CHECKOUT)) for path in files_of_the_build()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "src/callboard/__init__.py",
        "cli/main.py",
        "deploy/container-health",
    } <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "src",
        "runtime",
        "protocol",
        "sources",
        "actors",
        "node",
        "cli",
        "deploy",
    }
    assert not let_in(CHECKOUT / "deploy" / "secrets" / "config.yml")
    assert not let_in(CHECKOUT / ".git" / "config")
    assert not let_in(CHECKOUT / "cli" / "__pycache__" / "main.pyc")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the place of `/` in which the image's steps were run."""
    place = tmp_path_factory.mktemp("image")
    build = place / "build"
    for path in files_of_the_build():
        target = build / path.relative_to(CHECKOUT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    clean = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(place / "home"),
        "EXTRAS": "all",
        # What the image gets from the package index is taken from this environment: nothing is fetched.
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    for step in steps():
        if step.name == "RUN":
            script = on(place, step.text)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script], cwd=build, env=clean, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        elif step.name == "COPY" and "container-health" in step.text:
            target = Path(on(place, step.text.split()[-1]))
            text = (build / "deploy" / "container-health").read_text(encoding="utf-8")
            target.write_text(on(place, text), encoding="utf-8")
            target.chmod(int(re.findall(r"--chmod=(\d+)", step.text)[0], 8))
    return place


def on(place: Path, text: str) -> str:
    """The same step with its folders below `place` and its files owned by whoever runs the tests."""
    text = re.sub(r"(?<![\w./])/(opt|var|config)/", lambda found: f"{place}/{found[1]}/", text)
    return re.sub(r"-o \d+ -g \d+", f"-o {os.getuid()} -g {os.getgid()}", text)


def test_the_image_has_the_product_and_a_private_folder(machine: Path) -> None:
    home = Path(on(machine, environment()["HOME"]))
    assert home == machine / "var" / "lib" / "callboard"
    assert home.stat().st_mode & 0o777 == 0o700
    (package,) = (machine / "opt" / "callboard").glob("lib/python*/site-packages/callboard/__init__.py")
    assert package.is_file()


async def test_its_command_runs_a_service_that_its_health_check_finds_well(machine: Path) -> None:
    clean = {name: on(machine, value).replace("$PATH", os.environ["PATH"]) for name, value in environment().items()}
    clean["PYTHONPATH"] = sysconfig.get_path("purelib")
    config = machine / "config" / "config.yml"
    config.parent.mkdir(exist_ok=True)
    command = [on(machine, word) for word in last("CMD").words()]
    health = [on(machine, word) for word in last("HEALTHCHECK").words()]
    path = clean["PATH"]

    async def ask() -> tuple[int, str]:
        found = str(shutil.which(health[0], path=path))
        done = await trio.run_process([found, *health[1:]], env=clean, capture_stderr=True, check=False)
        return done.returncode, done.stderr.decode()

    async with open_node() as node:
        listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener[0].socket.getsockname()[1]
        await listener[0].aclose()
        content = {
            "elasticsearch.host": node.url,
            "service": {"worker_mode": True, "service_types": ["dir"]},
            "callboard.operations.port": port,
            "callboard.text_extraction.engine": "plain",
        }
        config.write_text(yaml.safe_dump(content))
        code, said = await ask()
        assert code == 1
        assert "does not answer" in said
        process = await trio.lowlevel.open_process(
            [str(shutil.which(command[0], path=path)), *command[1:]],
            env=clean, cwd=machine / "var" / "lib" / "callboard", stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with trio.fail_after(60):
                while (await ask())[0] != 0:  # noqa: ASYNC110  another process, which can only be asked
                    await trio.sleep(0.2)
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"http://127.0.0.1:{port}/ready")).json()["ready"] is True
            process.send_signal(getattr(signal, last("STOPSIGNAL").text))
            with trio.fail_after(30):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    config.write_text("callboard.operations.enabled: false\nconnectors: [{connector_id: one}]\n")
    code, said = await ask()
    assert code == 1
    assert "callboard.operations.enabled is false" in said
