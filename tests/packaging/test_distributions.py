"""Builds and installs what a user would get, from a copy of the checkout under another name, and looks at what is inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PRODUCT = ("runtime", "protocol", "sources", "actors", "node", "cli")
NOT_INSTALLED = {"build", "dist", "__pycache__", "node_modules"}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command outside this test's own environment and return what it printed; fail with all of it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_", "PYTEST_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def product_files(checkout: Path) -> set[str]:
    """Paths of everything below the architecture's folders and the package's face, as they should be installed."""
    found = {f"callboard/{path.name}" for path in (checkout / "src" / "callboard").iterdir() if path.is_file()}
    for folder in PRODUCT:
        for path in (checkout / folder).rglob("*"):
            if path.is_file() and not NOT_INSTALLED.intersection(path.parts):
                found.add(f"callboard/{path.relative_to(checkout)}")
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as `git clone` would make it, in a folder whose name is no Python identifier."""
    copy = tmp_path_factory.mktemp("elsewhere") / "callboard-main (2)"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        for name in filter(None, listed.stdout.split("\0")):
            source, target = CHECKOUT / name, copy / name
            # A file may be deleted or renamed while we copy: the listing is then older than the folder.
            if source.exists() or source.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
    else:
        leave_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
        shutil.copytree(CHECKOUT, copy, symlinks=True, ignore=leave_out)
    return copy


@pytest.fixture(scope="module")
def distributions(checkout: Path) -> tuple[Path, Path]:
    """The source distribution, and the wheel built from it."""
    out = checkout.parent / "out"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout, cwd=checkout.parent)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def new_environment(folder: Path) -> Path:
    """A virtual environment that sees the dependencies of this one but not its Callboard; returns its bin folder."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # Lines of a .pth file are searched for packages, but .pth files found there are not run: the editable install of
    # this checkout stays invisible.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def install(binaries: Path, *what: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet", "--no-deps"]
    run(*command, "--no-build-isolation", "--force-reinstall", *what, cwd=binaries.parent.parent)


def assert_works(binaries: Path, elsewhere: Path, expected_home: Path) -> None:
    """The command, the module and the sample work from a folder that is not the checkout."""
    by_name = run(binaries / "callboard", "--version", cwd=elsewhere)
    by_module = run(binaries / "python", "-m", "callboard", "--version", cwd=elsewhere)
    assert by_name == by_module
    assert by_name.startswith("callboard ")
    look = "import callboard.cli, pathlib; home = pathlib.Path(callboard.cli.__file__); print(home.resolve())"
    home = Path(run(binaries / "python", "-c", look, cwd=elsewhere).strip())
    assert home.is_relative_to(expected_home.resolve())
    assert len([path for path in (home.parent / "sample").rglob("*") if path.is_file()]) >= 24


def test_a_wheel_holds_the_product_and_nothing_else(checkout: Path, distributions: tuple[Path, Path]) -> None:
    _, wheel = distributions
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == product_files(checkout)
    assert "callboard/py.typed" in names
    assert "callboard/actors/operations/static/page.css" in names
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)
    (entry_points,) = (name for name in metadata if name.endswith("entry_points.txt"))
    assert "callboard = callboard.cli.main:main" in zipfile.ZipFile(wheel).read(entry_points).decode()


def test_a_source_distribution_holds_the_product_and_what_builds_it(
    checkout: Path, distributions: tuple[Path, Path]
) -> None:
    sdist, _ = distributions
    with tarfile.open(sdist) as archive:
        inside = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    sources = {name.removeprefix("src/") for name in inside if name.startswith("src/callboard/")}
    assert sources == product_files(checkout)
    outside = {name.split("/")[0] for name in inside} - {"src"}
    assert outside <= {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


def test_a_wheel_installs_and_runs(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    binaries = new_environment(tmp_path / "environment")
    install(binaries, distributions[1])
    assert_works(binaries, elsewhere=tmp_path, expected_home=tmp_path / "environment")


def test_a_plain_install_of_the_folder_runs(checkout: Path, tmp_path: Path) -> None:
    mine = tmp_path / "any name at all"
    shutil.copytree(checkout, mine, symlinks=True)
    binaries = new_environment(tmp_path / "environment")
    install(binaries, mine)
    assert_works(binaries, elsewhere=tmp_path, expected_home=tmp_path / "environment")


def test_an_editable_install_runs_the_files_of_the_checkout(checkout: Path, tmp_path: Path) -> None:
    mine = tmp_path / "callboard-1.2 (edited)"
    shutil.copytree(checkout, mine, symlinks=True)
    binaries = new_environment(tmp_path / "environment")
    install(binaries, "--editable", mine)
    assert_works(binaries, elsewhere=tmp_path, expected_home=mine)


def test_type_checkers_see_the_types_of_an_installed_callboard(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(distributions[1]).extractall(installed)
    program = tmp_path / "program.py"
    program.write_text("import callboard\nnumber: int = callboard.__version__\n")
    # Run in a folder of its own, with the configuration and cache of nobody.
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir", tmp_path / "cache", program],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "MYPYPATH"} | {"MYPYPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert 'expression has type "str", variable has type "int"' in checked.stdout, checked.stdout + checked.stderr


def test_the_links_of_the_package_point_at_the_folders_beside_it() -> None:
    package = CHECKOUT / "src" / "callboard"
    links = {path.name: path.readlink() for path in package.iterdir() if path.is_symlink()}
    assert links == {name: Path("../..") / name for name in PRODUCT}


@pytest.mark.parametrize("heavy", ["httpx", "elasticsearch", "hypercorn", "rich", "trio"])
def test_importing_callboard_imports_nothing_heavy(heavy: str, tmp_path: Path) -> None:
    loaded = run(sys.executable, "-c", f"import callboard, sys; print({heavy!r} in sys.modules)", cwd=tmp_path)
    assert loaded.strip() == "False"
