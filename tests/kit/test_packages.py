import sys
from pathlib import Path

import pytest

from channels_kit.serving import packages
from channels_kit.serving.packages import PackageError, import_with_websockets, numbers, require


@pytest.mark.parametrize(
    ("text", "expected"),
    [("13.0", (13,)), ("0.52.1rc1", (0, 52, 1)), ("17.0.dev1", (17,)), ("unknown", ())],
)
def test_the_numbers_of_a_version(text: str, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected


def test_a_package_that_fits_is_passed() -> None:
    require("uvicorn", "0.52.1")


@pytest.mark.parametrize(
    ("package", "least", "message"),
    [
        ("uvicorn", "99", r"uvicorn [\d.]+ is too old for this kit; allowed: uvicorn>=99"),
        ("no-such-package", "1", "no-such-package is not installed"),
    ],
)
def test_a_package_that_does_not_fit_is_named(package: str, least: str, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        require(package, least)


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def two_websockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's `websockets`, a module that needs another, and the kit's."""
    for place, version in (("own", "12.0"), ("kit", "15.0")):
        write(tmp_path / place / "websockets/__init__.py", f"which = '{version}'")
        write(tmp_path / place / "websockets/server.py", f"which = '{version}'")
        metadata = f"Metadata-Version: 2.1\nName: websockets\nVersion: {version}\n"
        write(tmp_path / place / f"websockets-{version}.dist-info/METADATA", metadata)
    write(tmp_path / "own/protocol_of_a_server.py", "from websockets.server import which")
    # What the tests themselves have imported comes back afterwards.
    for name in [name for name in sys.modules if name.partition(".")[0] == "websockets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "protocol_of_a_server", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "own")
    monkeypatch.setattr(packages, "SITE_PACKAGES", str(tmp_path / "kit"))


@pytest.mark.usefixtures("two_websockets")
def test_the_server_gets_the_kits_and_the_application_its_own() -> None:
    import_with_websockets("protocol_of_a_server")
    import protocol_of_a_server  # type: ignore[import-not-found]
    import websockets.server

    path = list(sys.path)
    assert protocol_of_a_server.which == "15.0"
    assert websockets.server.which == "12.0"  # type: ignore[attr-defined]
    assert path == sys.path


@pytest.mark.usefixtures("two_websockets")
def test_what_the_application_has_imported_stays() -> None:
    import websockets

    import_with_websockets("protocol_of_a_server")
    assert sys.modules["websockets"] is websockets


@pytest.mark.usefixtures("two_websockets")
def test_one_that_fits_is_used_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "WEBSOCKETS_LEAST", "12")
    import_with_websockets("protocol_of_a_server")
    import protocol_of_a_server

    assert protocol_of_a_server.which == "12.0"


@pytest.mark.usefixtures("two_websockets")
def test_without_one_that_fits_both_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "own/websockets/server.py", "")
    monkeypatch.setattr(packages, "SITE_PACKAGES", str(tmp_path / "nothing"))
    with pytest.raises(PackageError, match=r"websockets>=13.0; the application has 12.0, and .*"):
        import_with_websockets("protocol_of_a_server")
