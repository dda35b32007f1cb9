"""Whatever says what an application needs becomes a list that every host can install.

uv is the real one. Its index is a directory of small wheels, so no registry is asked.
"""

import hashlib
import json
import platform
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from packing import PackError, faults
from packing.requirements import Answer, Question, Requirements
from packing.uv import Target, Uv

from .house import ROOT
from .projects import git, wheel, write

UV = Path(sys.executable).with_name("uv")
PYTHON = platform.python_version()
HERE = Target(PYTHON, platform.machine())
Ask = Callable[..., Answer]

SETUP = """\
[project]
name = "{name}"
version = "{version}"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# A build backend of its own: nothing has to come from an index to build with it.
BACKEND = """\
import pathlib, zipfile

NAME, VERSION, TAG = "{name}", "{version}", "{tag}"

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    file = f"{{NAME}}-{{VERSION}}-{{TAG}}.whl"
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, file), "w") as opened:
        opened.writestr(f"{{NAME}}.py", "built = 1\\n")
        named = f"Name: {{NAME}}\\nVersion: {{VERSION}}\\n"
        opened.writestr(f"{{info}}/METADATA", "Metadata-Version: 2.1\\n" + named)
        kind = f"Root-Is-Purelib: true\\nTag: {{TAG}}\\n"
        opened.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\n" + kind)
        opened.writestr(f"{{info}}/RECORD", "")
    return file

def build_sdist(sdist_directory, config_settings=None):
    raise NotImplementedError
"""


def package(name: str, version: str, tag: str = "py3-none-any") -> dict[str, str]:
    """The files of a package that is built from its source."""
    values = {"name": name, "version": version, "tag": tag}
    return {"pyproject.toml": SETUP.format(**values), "backend.py": BACKEND.format(**values)}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheels that there are, and nothing else."""
    index = tmp_path / "index"
    for name, version, requires in (
        ("django", "5.2", ["sqlparse"]),
        ("django", "5.3", ["sqlparse"]),
        ("sqlparse", "0.5", []),
        ("sqlparse", "0.6", []),
        ("channels-redis", "4.3", ["redis>=5"]),
        ("redis", "7.0", []),
        ("redis", "8.0", []),
        ("uvicorn", "0.38.0", ["click>=7"]),
        ("uvicorn", "0.51.0", ["click>=7"]),
        ("uvicorn", "0.60.0", ["click>=8"]),
        ("uvicorn", "0.61.0", ["click>=8"]),
        ("daphne", "4.2.2", []),
        ("click", "7.0", []),
        ("click", "8.0", []),
        ("pytest", "8.0", []),
    ):
        wheel(index, name, version, requires)
    configuration = f'no-index = true\nfind-links = ["{index}"]\n'
    write(tmp_path, {"uv.toml": configuration})
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return index


@pytest.fixture
def ask(index: Path, tmp_path: Path) -> Ask:
    top = tmp_path / "top"
    top.mkdir()

    def ask(files: dict[str, str] | None = None, refresh: bool = False, **given: object) -> Answer:
        write(top, files or {})
        values: dict[str, object] = {
            "root": ".",
            "named": "",
            "server": "uvicorn",
            "extras": [],
            "targets": [HERE],
            **given,
        }
        question = Question(top=top, **values)  # type: ignore[arg-type]
        return Requirements(Uv(UV), tmp_path / "kept", refresh).answer(question)

    return ask


def versions(answer: Answer) -> list[str]:
    return [
        f"{each.name}=={each.version}" for each in sorted(answer.packages, key=lambda e: e.name)
    ]


def test_pinned_requirements_get_what_they_need_and_the_server(ask: Ask) -> None:
    answer = ask({"requirements.txt": "Django==5.2  # the long one\nchannels-redis==4.3\n"})
    assert versions(answer) == [
        *("channels-redis==4.3", "click==8.0", "django==5.2", "redis==7.0"),
        *("sqlparse==0.6", "uvicorn==0.61.0"),
    ]
    assert all(each.hashes for each in answer.packages)
    assert answer.file.endswith("requirements.txt")
    assert "--hash=sha256:" in answer.text


def test_included_files_and_constraints(ask: Ask) -> None:
    answer = ask(
        {
            "requirements/production.txt": "-r base.txt\n-c limits.txt\n",
            "requirements/base.txt": "django\n",
            "requirements/limits.txt": "sqlparse<0.6\ndjango<5.3\n",
        }
    )
    assert {"django==5.2", "sqlparse==0.5"} <= set(versions(answer))


def test_the_next_deploy_takes_the_same_versions(ask: Ask, index: Path) -> None:
    before = ask({"requirements.txt": "django\n"})
    wheel(index, "django", "5.4", ["sqlparse"])
    assert ask() == before
    # What has been added changes no version of the others.
    more = ask({"requirements.txt": "django\nchannels-redis\n"})
    assert {"django==5.3", "channels-redis==4.3"} <= set(versions(more))
    assert "django==5.4" in versions(ask(refresh=True))
    assert "django==5.4" in versions(ask())


def test_an_included_file_that_has_changed_is_another_answer(ask: Ask) -> None:
    files = {"requirements.txt": "-r base.txt\n", "base.txt": "django==5.2\n"}
    assert "django==5.2" in versions(ask(files))
    assert "django==5.3" in versions(ask({"base.txt": "django==5.3\n"}))


def test_the_kit_s_own_version_of_the_server_is_preferred(ask: Ask, tmp_path: Path) -> None:
    lock = tmp_path / "uv.lock"
    lock.write_text('[[package]]\nname = "uvicorn"\nversion = "0.60.0"\n')
    assert "uvicorn==0.60.0" in versions(ask({"requirements.txt": "django"}, preferred=lock))
    # No version is forced on what the application pins.
    pinned = ask({"requirements.txt": "django\nclick==7.0"}, preferred=lock)
    assert {"click==7.0", "uvicorn==0.38.0"} <= set(versions(pinned))


def test_the_application_s_own_server_stays(ask: Ask) -> None:
    assert "uvicorn==0.38.0" in versions(ask({"requirements.txt": "uvicorn==0.38.0"}))
    assert "uvicorn==0.51.0" in versions(ask({"requirements.txt": "uvicorn==0.51.0"}))
    both = versions(ask({"requirements.txt": "uvicorn==0.38.0"}, server="daphne"))
    assert {"daphne==4.2.2", "uvicorn==0.38.0"} <= set(both)


def test_a_server_that_the_kit_cannot_use_is_replaced(ask: Ask, index: Path) -> None:
    old = wheel(index, "uvicorn", "0.17.6", ["click>=7"])
    files = {"requirements.txt": f"click==7.0\nuvicorn==0.17.6 --hash={old}\n"}
    found = versions(ask(files))
    assert "uvicorn==0.17.6" not in found
    # By one that goes with the application's other versions.
    assert {"click==7.0", "uvicorn==0.38.0"} <= set(found)


@pytest.mark.parametrize("server", faults.SERVERS)
def test_what_is_packed_can_be_served(server: str) -> None:
    """The oldest version that is added is one that channels_kit.serving takes."""
    text = (ROOT / "kit" / "channels_kit" / "serving" / f"{server}.py").read_text()
    least = re.search(r'^LEAST = "(.+)"', text, re.MULTILINE)
    assert least
    [packed] = [
        each.version
        for each in Requirement(faults.SERVERS[server]).specifier
        if each.operator == ">="
    ]
    assert Version(packed) >= Version(least[1])


def test_a_server_that_does_not_go_with_the_pins_is_named(ask: Ask, index: Path) -> None:
    wheel(index, "click", "6.0")
    with pytest.raises(
        PackError, match=r"No allowed version of uvicorn\S+ is compatible with .*requirements.txt"
    ):
        ask({"requirements.txt": "click==6.0"})


def test_what_is_resolved_avoids_known_faults_unless_it_is_asked_for(ask: Ask) -> None:
    assert "redis==7.0" in versions(ask({"requirements.txt": "channels-redis\nuvicorn\n"}))
    asked = ask({"requirements.txt": "channels-redis\nredis>=8\n"})
    assert "redis==8.0" in versions(asked)


def test_what_makes_others_faster_is_added_and_changes_none_of_them(ask: Ask, index: Path) -> None:
    for version in ("0.22", "0.23"):
        wheel(index, "uvloop", version, [])
    wheel(index, "hiredis", "3.3", [])
    wheel(index, "redis", "7.1", ["hiredis>=3.2 ; extra == 'hiredis'"])
    found = versions(ask({"requirements.txt": "redis==7.1\nuvloop==0.22\n"}))
    assert found == ["click==8.0", "hiredis==3.3", "redis==7.1", "uvicorn==0.61.0", "uvloop==0.22"]
    # Without redis there is nothing for hiredis to do.
    assert "uvloop==0.23" in versions(ask({"requirements.txt": "sqlparse==0.6\n"}))
    assert versions(ask(server="daphne")) == ["daphne==4.2.2", "sqlparse==0.6"]


def test_what_makes_others_faster_is_left_out_where_a_host_cannot_have_it(
    ask: Ask, index: Path
) -> None:
    wheel(index, "uvloop", "0.23", [], tag="cp399-cp399-manylinux2014_x86_64")
    wheel(index, "httptools", "0.9", ["click<8"])
    found = versions(ask({"requirements.txt": "click==8.0\n"}))
    assert found == ["click==8.0", "uvicorn==0.61.0"]


def test_hashes_of_the_list_are_the_only_ones_allowed(ask: Ask, index: Path) -> None:
    right = wheel(index, "django", "5.2", ["sqlparse"])
    wheel(index, "django", "5.2", ["sqlparse"], tag="py2.py3-none-any")
    other = wheel(index, "sqlparse", "0.5")
    text = f"django==5.2 --hash={right}\nsqlparse==0.5 --hash={other}\n"
    answer = ask({"requirements.txt": text})
    assert {each.hashes for each in answer.packages if each.name == "django"} == {(right,)}


def test_pyproject_alone_with_an_extra(ask: Ask) -> None:
    project = (
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
        'dependencies = ["django<5.3"]\n[project.optional-dependencies]\nprod = ["redis<8"]\n'
        '[dependency-groups]\ndev = ["pytest"]\n'
    )
    assert "redis==7.0" not in versions(ask({"pyproject.toml": project}))
    answer = ask(extras=["prod"])
    assert {"django==5.2", "redis==7.0"} <= set(versions(answer))
    assert "pytest==8.0" not in versions(answer)


def test_poetry_s_lock_gives_the_versions(ask: Ask, index: Path) -> None:
    right = wheel(index, "django", "5.2", ["sqlparse"])
    other = wheel(index, "sqlparse", "0.5")
    lock = "".join(
        f'[[package]]\nname = "{name}"\nversion = "{version}"\npython-versions = ">=3.8"\n'
        f'files = [{{file = "x.whl", hash = "{digest}"}}]\n'
        for name, version, digest in (
            ("django", "5.2", right),
            ("sqlparse", "0.5", other),
            ("pytest", "8.0", right),
        )
    )
    project = '[tool.poetry.dependencies]\npython = "^3.11"\ndjango = "^5.0"\n'
    answer = ask({"poetry.lock": lock, "pyproject.toml": project})
    assert versions(answer) == ["click==8.0", "django==5.2", "sqlparse==0.5", "uvicorn==0.61.0"]


MEMBER = '[project]\nname = "forms"\nversion = "2.0"\nrequires-python = ">=3.11"\n'
SHOP = """\
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = ["django<5.3", "forms"]
[project.optional-dependencies]
daphne = ["daphne"]
[dependency-groups]
dev = ["pytest"]
[tool.uv.workspace]
members = ["libs/*"]
[tool.uv.sources]
forms = { workspace = true }
"""


MARKER = 'python_full_version < "3.11.3"'


@pytest.mark.parametrize(
    ("pythons", "marker"),
    [(["3.11.2"], ""), (["3.11.7"], None), (["3.11.2", "3.11.7"], MARKER)],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_lock_made_for_another_python_is_completed(
    ask: Ask, index: Path, pythons: list[str], marker: str | None
) -> None:
    """Pipenv's knows the Python that it was made with, and not that of the hosts."""
    wheel(index, "async-timeout", "5.0")
    hashes = [wheel(index, "redis", "5.0.4", [f"async-timeout>=4; {MARKER}"])]
    lock = {"default": {"redis": {"version": "==5.0.4", "hashes": hashes}}}
    targets = [Target(python, HERE.machine) for python in pythons]
    answer = ask({"Pipfile.lock": json.dumps(lock)}, targets=targets)
    found = {each.name: each for each in answer.packages}
    assert found["redis"].version == "5.0.4"
    assert ("async-timeout" in found) == (marker is not None)
    if marker is not None:
        assert found["async-timeout"].marker == marker


def test_a_lock_that_contradicts_its_packages_is_taken_as_it_is(ask: Ask, index: Path) -> None:
    hashes = [wheel(index, "redis", "5.0.4", ["django>=5.3"])]
    lock = {"redis": {"version": "==5.0.4", "hashes": hashes}, "django": {"version": "==5.2"}}
    answer = ask({"Pipfile.lock": json.dumps({"default": lock})})
    assert {"django==5.2", "redis==5.0.4"} < set(versions(answer))


def test_uv_s_lock_with_a_member_of_its_workspace(ask: Ask, tmp_path: Path) -> None:
    forms = package("forms", "2.0")
    forms["pyproject.toml"] += 'requires-python = ">=3.11"\n'.replace("requires-python", "#")
    files = {f"libs/forms/{name}": text for name, text in forms.items()}
    write(tmp_path / "top", {"pyproject.toml": SHOP, **files})
    Uv(UV).run(tmp_path / "top", "lock", "--quiet")
    answer = ask(server="daphne")
    assert versions(answer) == ["daphne==4.2.2", "django==5.2", "forms==2.0", "sqlparse==0.6"]
    assert [path.name for path in answer.wheels] == ["forms-2.0-py3-none-any.whl"]
    assert "file:" not in answer.text
    assert str(tmp_path) not in answer.text
    # What changes in it is another wheel.
    write(
        tmp_path / "top", {"libs/forms/backend.py": forms["backend.py"].replace("built", "other")}
    )
    again = ask(server="daphne")
    assert again.text != answer.text
    # A build leaves nothing in the source.
    assert sorted(path.name for path in (tmp_path / "top/libs/forms").iterdir()) == sorted(forms)


def test_a_package_of_git_is_built(ask: Ask, tmp_path: Path) -> None:
    repository = write(tmp_path / "forms", package("forms", "3.0"))
    git(repository, "init", "--quiet")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "forms")
    commit = git(repository, "rev-parse", "HEAD")
    answer = ask({"requirements.txt": f"django==5.2\nforms @ git+file://{repository}@{commit}\n"})
    assert "forms==3.0" in versions(answer)
    assert [path.name for path in answer.wheels] == ["forms-3.0-py3-none-any.whl"]
    assert "git+" not in answer.text


def test_a_wheel_that_is_named_by_its_path_is_packed(ask: Ask, tmp_path: Path) -> None:
    wheel(tmp_path / "own", "forms", "3.0")
    answer = ask(
        {"requirements.txt": f"forms @ file://{tmp_path}/own/forms-3.0-py3-none-any.whl\n"}
    )
    assert "forms==3.0" in versions(answer)
    assert [path.name for path in answer.wheels] == ["forms-3.0-py3-none-any.whl"]


def test_a_source_distribution_of_an_index_is_built(ask: Ask, index: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "forms-3.0", package("forms", "3.0"))
    write(source, {"PKG-INFO": "Metadata-Version: 2.2\nName: forms\nVersion: 3.0\n"})
    with tarfile.open(index / "forms-3.0.tar.gz", "w:gz") as archive:
        archive.add(source, "forms-3.0")
    answer = ask({"requirements.txt": "forms==3.0\n"})
    assert [path.name for path in answer.wheels] == ["forms-3.0-py3-none-any.whl"]
    digest = hashlib.sha256(answer.wheels[0].read_bytes()).hexdigest()
    assert f"forms==3.0 \\\n    --hash=sha256:{digest}" in answer.text


@pytest.mark.parametrize("foreign", ["win32-service", "old-zone"])
def test_a_pin_that_only_another_system_needs_is_left_out(
    ask: Ask, index: Path, tmp_path: Path, foreign: str
) -> None:
    """pip freeze on Windows, or on an old Python, lists what no host can have."""
    needs = ["win32-service ; sys_platform == 'win32'", "old-zone ; python_version < '3.9'"]
    wheel(index, "twisted", "21.7", needs)
    wheel(index, "win32-service", "306", tag="cp311-cp311-win_amd64")
    source = write(
        tmp_path / "old_zone-306", {"pyproject.toml": SETUP.format(name="old-zone", version="306")}
    )
    write(source, {"PKG-INFO": "Metadata-Version: 2.2\nName: old-zone\nVersion: 306\n"})
    with tarfile.open(index / "old_zone-306.tar.gz", "w:gz") as archive:
        archive.add(source, "old_zone-306")
    pins = f"twisted==21.7\npkg-resources==0.0.0\n{foreign}==306\n"
    answer = ask({"requirements.txt": pins})
    assert "twisted==21.7" in versions(answer)
    assert not [each for each in versions(answer) if foreign in each or "pkg" in each]


@pytest.mark.parametrize("needs", [[], ["forms"], ["forms ; extra == 'web'"]])
def test_a_pin_that_a_host_may_need_is_not_left_out(
    ask: Ask, index: Path, tmp_path: Path, needs: list[str]
) -> None:
    wheel(index, "twisted", "21.7", needs)
    broken = {**package("forms", "3.0"), "backend.py": "import missing_library\n"}
    source = write(tmp_path / "forms-3.0", broken)
    write(source, {"PKG-INFO": "Metadata-Version: 2.2\nName: forms\nVersion: 3.0\n"})
    with tarfile.open(index / "forms-3.0.tar.gz", "w:gz") as archive:
        archive.add(source, "forms-3.0")
    with pytest.raises(
        PackError,
        match=r"(?s)Cannot build a wheel of forms==3.0. It has no wheel for Python"
        r".*install what its build needs.*missing_library",
    ):
        ask({"requirements.txt": "twisted==21.7\nforms==3.0\n"})


@pytest.mark.parametrize("name", ["requirements.txt", "Pipfile.lock"])
def test_channels_2_is_refused_before_anything_is_resolved(ask: Ask, name: str) -> None:
    lock = {"default": {each: {"version": "==2.4.0"} for each in ("channels", "no-such-package")}}
    text = json.dumps(lock) if name == "Pipfile.lock" else "channels==2.4.0\nno-such-package==1\n"
    with pytest.raises(PackError, match=r"Channels 2.4.0 is too old. The kit serves Channels 3.0"):
        ask({name: text})


def test_a_pin_with_a_wildcard_is_read(ask: Ask, index: Path) -> None:
    wheel(index, "channels", "4.1.2")
    assert "channels==4.1.2" in versions(ask({"requirements.txt": "channels==4.1.*\n"}))
    with pytest.raises(PackError, match=r"Channels 2.4 is too old"):
        ask({"requirements.txt": "channels==2.4.*\n"})


def test_channels_2_is_refused_after_resolution() -> None:
    refused = faults.refusals({"channels": "2.4.0"}, "uvicorn", faults.NAMES, "uv.lock")
    assert "Channels 2.4.0 is too old" in refused[0]


def test_a_wheel_for_another_python_is_refused_by_name(ask: Ask, tmp_path: Path) -> None:
    """This machine's Python builds for itself alone."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}-none-linux_{platform.machine()}"
    repository = write(tmp_path / "forms", package("forms", "3.0", tag))
    git(repository, "init", "--quiet")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "forms")
    files = {"requirements.txt": f"forms @ git+file://{repository}\n"}
    assert "forms==3.0" in versions(ask(files))
    foreign = Target(PYTHON, "s390x")
    with pytest.raises(PackError, match=r"forms has no wheel for Python .* on s390x.*Pack on"):
        ask(targets=[foreign])


def test_a_python_that_the_application_does_not_support_is_refused(ask: Ask) -> None:
    project = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.14"\n'
    with pytest.raises(
        PackError, match=r"needs Python >=3.14 .*the hosts have .*Use hosts with such"
    ):
        ask({"pyproject.toml": project, "requirements.txt": "django"})


def test_the_python_of_poetry_is_a_lower_bound(ask: Ask) -> None:
    project = '[tool.poetry.dependencies]\npython = "{}"\ndjango = "^5.2"\n'
    with pytest.raises(PackError, match=r"needs Python >=3.99 \(.*the hosts have"):
        ask({"pyproject.toml": project.format("^3.99")})
    assert "django==5.3" in versions(ask({"pyproject.toml": project.format(">=3.8,<3.10")}))


def test_packages_for_a_newer_python_name_it(ask: Ask, index: Path) -> None:
    """A list of requirements does not say for which Python it is."""
    wheel(index, "forms", "3.0", requires_python=">=3.13")
    with pytest.raises(
        PackError, match=r"needs a newer Python, such as 3.13 .*hosts have 3.11.2.*channels_python"
    ):
        ask({"requirements.txt": "forms==3.0\n"}, targets=[Target("3.11.2", HERE.machine)])


def test_an_extra_that_there_is_none_of_is_named(ask: Ask, tmp_path: Path) -> None:
    write(tmp_path / "top", {"pyproject.toml": SHOP.replace(', "forms"', "")})
    Uv(UV).run(tmp_path / "top", "lock", "--quiet")
    with pytest.raises(PackError, match=r"channels_extras has prod;.*It has: daphne, dev"):
        ask(extras=["prod"])


def test_what_uv_refuses_is_in_uv_s_words(ask: Ask) -> None:
    with pytest.raises(PackError, match=r"uv pip exited with status 1:\n[^$]*no-such-package"):
        ask({"requirements.txt": "no-such-package==1\n"})
