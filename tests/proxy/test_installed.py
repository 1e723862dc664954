"""The digest of the package: the same wherever it lies, another for any byte of it, and what sha256sum computes."""

from __future__ import annotations

import compileall
import fnmatch
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import pytest

import lictor
from lictor.formats.errors import UsageError
from lictor.proxy import installed
from lictor.proxy.installed import dependencies, package_changed, package_digest, package_manifest, recorded

FILES = {
    "__init__.py": "x = 1\n",
    "py.typed": "",
    "proxy/__init__.py": "",
    "proxy/deep/__init__.py": "",
    "proxy/deep/a.py": "y = 2\n",
    "proxy/config.json": "{}",
    "formats/__init__.py": "",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "site" / "lictor"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def digest(root: Path) -> str:
    return sha256(package_manifest(root)).hexdigest()


def test_the_lines_are_those_of_sha256sum(package: Path) -> None:
    manifest = package_manifest(package)
    assert [line.split("  ")[1] for line in manifest.decode().splitlines()] == sorted(FILES)
    checked = subprocess.run(["sha256sum", "--strict", "-c"], input=manifest, cwd=package, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_the_recipe_of_the_documentation(package: Path) -> None:
    text = (Path(lictor.__file__).parent / "docs/monitors.md").read_text()
    recipe = text.split("```sh\n")[1].split("```")[0]
    done = subprocess.run(["sh", "-c", recipe], cwd=package, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == digest(package)
    own = subprocess.run(["sh", "-c", recipe], cwd=Path(lictor.__file__).parent, capture_output=True, text=True)
    assert own.stdout.split()[0] == sha256(package_manifest(Path(lictor.__file__).parent)).hexdigest()


def compiled(root: Path) -> None:
    compileall.compile_dir(root, quiet=1)


def beside(root: Path) -> None:
    """What lies beside the package in a checkout."""
    for name in ("README.md", "tests/test_x.py", ".git/config", "build/lib/x.py", "pyproject.toml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("anything")


def touched(root: Path) -> None:
    (root / "proxy/deep/a.py").touch()
    (root / "proxy/deep/a.py").chmod(0o755)


@pytest.mark.parametrize("change", [compiled, beside, touched])
def test_what_is_no_change(package: Path, change: Callable[[Path], None]) -> None:
    before = digest(package)
    change(package)
    assert digest(package) == before


def test_wherever_it_lies(package: Path, tmp_path: Path) -> None:
    before = digest(package)
    shutil.copytree(package, tmp_path / "elsewhere")
    assert digest(tmp_path / "elsewhere") == before
    (tmp_path / "link").symlink_to(package)
    assert digest(tmp_path / "link") == before
    linked = tmp_path / "linked"
    shutil.copytree(package, linked, copy_function=lambda source, target: Path(target).symlink_to(source))
    assert digest(linked) == before, "some installers link files"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("proxy/deep/a.py", "y = 3\n", id="one byte"),
        pytest.param("proxy/config.json", "{ }", id="a file of data"),
        pytest.param("proxy/added.py", "", id="an empty module more"),
        pytest.param("proxy/deep/a.cpython-313-x86_64-linux-gnu.so", "", id="a module that shadows another"),
        pytest.param("proxy/b.pyc", "", id="a module without source"),
        pytest.param("added.py", "", id="a module more in the package itself"),
        pytest.param("__init__.abi3.so", "", id="one that shadows the package"),
        pytest.param("added/__init__.py", "", id="a package more"),
    ],
)
def test_what_is_a_change(package: Path, name: str, text: str) -> None:
    before = digest(package)
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text(text)
    assert digest(package) != before


def test_a_file_that_moved_is_a_change(package: Path) -> None:
    before = digest(package)
    (package / "proxy/deep/a.py").rename(package / "proxy/a.py")
    assert digest(package) != before


def test_names_that_sha256sum_would_write_otherwise(package: Path) -> None:
    (package / "proxy" / "a\nb.py").write_text("")
    with pytest.raises(UsageError, match="line feed or a backslash"):
        package_manifest(package)


def test_it_is_over_what_a_wheel_has() -> None:
    """So an installed package and a checkout of the same version have one digest."""
    root = Path(lictor.__file__).parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    shipped = settings["package-data"]
    for line in package_manifest(root).decode().splitlines():
        name = Path(line.split("  ")[1])
        package = ".".join(("lictor", *name.parent.parts))
        assert package in settings["packages"], f"{name} is in no package of pyproject.toml"
        patterns = ["*.py", *shipped.get(package, ())]
        assert any(fnmatch.fnmatch(name.name, pattern) for pattern in patterns), f"{name} would not be in a wheel"


def test_it_is_read_once() -> None:
    """What runs is what was there when it was loaded; files may change under it."""
    assert package_digest() == package_digest() == sha256(package_manifest()).hexdigest()


def test_dependencies() -> None:
    found = dependencies()
    assert {"mitmproxy", "cryptography", "h2", "aiohttp"} <= found.versions.keys()
    assert "lictor" not in found.versions
    assert "pytest" not in found.versions, "extras are not needed to run"
    assert found.versions["mitmproxy"] == distribution("mitmproxy").version
    lines = found.manifest.decode().splitlines()
    assert [line.split("  ")[1] for line in lines] == [f"{name} {version}" for name, version in found.versions.items()]
    assert sha256(found.manifest).hexdigest() == found.digest


def test_what_an_installer_recorded() -> None:
    """By the recipe of the documentation."""
    found = distribution("click")
    recipe = (Path(lictor.__file__).parent / "docs/monitors.md").read_text().split("```sh\n")[2].split("```")[0]
    folder = Path(str(found.locate_file("click"))).parent / f"click-{found.version}.dist-info"
    done = subprocess.run(["sh", "-c", recipe], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == recorded(found)


def test_what_differs_from_place_to_place_is_left_out(tmp_path: Path) -> None:
    same = "x/a.py,sha256=AAA,3\nx/b.py,sha256=BBB,4\n"
    record = tmp_path / "x-1.dist-info" / "RECORD"
    record.parent.mkdir()
    digests = set()
    for more in (
        "",
        "../../../bin/x,sha256=CCC,9\n",
        "/opt/bin/x,sha256=DDD,9\n",
        "x/__pycache__/a.cpython-313.pyc,,\n",
        "x-1.dist-info/INSTALLER,sha256=EEE,4\nx-1.dist-info/RECORD,,\n",
    ):
        record.write_text(more + same)
        digests.add(recorded(PathDistribution(record.parent)))
    assert len(digests) == 1
    record.write_text(same.replace("BBB", "BBC"))
    assert recorded(PathDistribution(record.parent)) not in digests


def test_files_that_change_under_a_monitor(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_own_root", lambda: package)
    installed._own_manifest.cache_clear()
    try:
        before = package_digest()
        assert not package_changed()
        (package / "proxy/deep/a.py").write_text("y = 3\n")
        assert (package_changed(), package_digest()) == (True, before)
        (package / "proxy/deep/a.py").write_text(FILES["proxy/deep/a.py"])
        assert not package_changed()
        (package / "proxy/deep/a.py").unlink()
        (package / "proxy/deep/a.py").symlink_to("nowhere")
        assert package_changed(), "what cannot be read is not what was there"
    finally:
        installed._own_manifest.cache_clear()
