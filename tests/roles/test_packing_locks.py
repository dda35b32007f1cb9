"""What an application needs is read from whatever it keeps that in."""

import json
from pathlib import Path

import pytest

from packing import PackError, locks
from packing.packages import Package

from .projects import write

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def read(file: Path) -> locks.Wanted:
    return locks.read(file, "3.11.2", "x86_64")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["requirements.txt", "uv.lock", "pyproject.toml"], "uv.lock"),
        (["requirements.txt", "Pipfile.lock", "Pipfile"], "Pipfile.lock"),
        (["requirements.txt", "poetry.lock"], "poetry.lock"),
        (["requirements.txt", "pylock.toml"], "pylock.toml"),
        (["requirements.txt", "pdm.lock"], "pdm.lock"),
        (["requirements/base.txt", "requirements/production.txt"], "requirements/production.txt"),
        (["requirements/dev.txt", "requirements/base.txt"], "requirements/base.txt"),
        (["requirements.txt", "requirements/production.txt"], "requirements.txt"),
        (["Pipfile"], "Pipfile"),
        (["setup.py"], "setup.py"),
        # The nearest one to manage.py.
        (["uv.lock", "backend/requirements.txt"], "backend/requirements.txt"),
        (["uv.lock", "docs/requirements.txt"], "uv.lock"),
    ],
)
def test_the_file_is_found(tmp_path: Path, files: list[str], expected: str) -> None:
    top = write(tmp_path / "top", dict.fromkeys(files, ""))
    (top / "backend").mkdir(exist_ok=True)
    assert locks.find(top, "backend") == top / expected


def test_a_pyproject_of_tools_alone_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"backend/pyproject.toml": "[tool.ruff]\nline-length = 100\n", "Pipfile": ""})
    assert locks.find(tmp_path, "backend").name == "Pipfile"


def test_nothing_found_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"Nothing in .* Or set channels_requirements"):
        locks.find(tmp_path, ".")
    write(tmp_path, {"deploy/list.txt": ""})
    assert locks.find(tmp_path, ".", "deploy/list.txt").name == "list.txt"
    with pytest.raises(PackError, match=r"channels_requirements is gone.txt"):
        locks.find(tmp_path, ".", "gone.txt")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["backend/config/requirements/base.txt", "backend/config/requirements/dev.txt"], 0),
        (["backend/requirements/common.txt", "backend/requirements/production.txt"], 1),
        (["requirements-dev.txt", "requirements-prod.txt"], 1),
        (["deploy/prod_requirements.txt", "docs/requirements.txt"], 0),
        (["reqs/site.txt", "reqs/test.txt"], 0),
        (["backend/requirements/server.in", ".venv/requirements.txt"], 0),
    ],
)
def test_a_list_in_another_place_is_found(tmp_path: Path, files: list[str], expected: int) -> None:
    write(tmp_path, dict.fromkeys(files, ""))
    assert locks.find(tmp_path, ".") == tmp_path / files[expected]


def test_several_lists_in_other_places_are_named(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(["a/requirements.txt", "b/requirements.txt", "notes.txt"], ""))
    with pytest.raises(PackError, match=r"Set channels_requirements to one of them: a/.*, b/"):
        locks.find(tmp_path, ".")


def test_the_lock_of_a_workspace_is_above_its_member(tmp_path: Path) -> None:
    lock = '[[package]]\nname = "shop"\nsource = { virtual = "shop" }\n'
    member = '[project]\nname = "shop"\n'
    write(tmp_path, {"uv.lock": lock, "shop/pyproject.toml": member, "b/pyproject.toml": member})
    assert locks.find(tmp_path / "shop", ".") == tmp_path / "uv.lock"
    assert locks.find(tmp_path / "b", ".").name == "pyproject.toml"


def test_pipenv(tmp_path: Path) -> None:
    git = {"git": "git@git.test:ada/forms.git", "ref": "1" * 40, "subdirectory": "python"}
    lock = {
        "_meta": {},
        "default": {
            "Django": {"version": "==5.2", "hashes": [A, B], "index": "pypi"},
            "appnope": {"version": "==1.0", "hashes": [A], "markers": "sys_platform == 'darwin'"},
            "twisted": {"version": "==24.3", "extras": ["tls"], "hashes": [B]},
            "forms": git,
            "local": {"path": "./libs/local", "editable": True},
        },
        "develop": {"pytest": {"version": "==8"}},
    }
    write(tmp_path, {"Pipfile.lock": json.dumps(lock)})
    assert list(read(tmp_path / "Pipfile.lock").packages) == [
        Package("django", "5.2", "", (A, B)),
        Package("appnope", "1.0", "sys_platform == 'darwin'", (A,)),
        Package("twisted", "24.3", "", (B,)),
        Package(
            "forms", url=f"git+ssh://git@git.test/ada/forms.git@{'1' * 40}#subdirectory=python"
        ),
        Package("local", url=str(tmp_path / "libs/local")),
    ]


POETRY = f"""
[[package]]
name = "django"
version = "5.2"
optional = false
python-versions = ">=3.10"
files = [{{file = "django-5.2-py3-none-any.whl", hash = "{A}"}}]

[[package]]
name = "numpy"
version = "1.26"
python-versions = ">=3.9,<3.12"
files = [{{file = "n.whl", hash = "{A}"}}]

[[package]]
name = "numpy"
version = "2.2"
python-versions = ">=3.12"
files = [{{file = "n.whl", hash = "{B}"}}]

[[package]]
name = "forms"
version = "0.1"
python-versions = "*"
files = []
[package.source]
type = "git"
url = "https://git.test/forms.git"
reference = "main"
resolved_reference = "{"1" * 40}"
"""
POETRY_PROJECT = """
[tool.poetry.dependencies]
python = "^3.11"
Django = "^5.0"
numpy = {version = "*", markers = "platform_machine == 'x86_64'"}
forms = {git = "https://git.test/forms.git", branch = "main"}
celery = {version = "^5.4", extras = ["redis"], python = ">=3.11"}
gunicorn = {version = "*", optional = true}
[tool.poetry.group.dev.dependencies]
pytest = "*"
"""


def test_poetry(tmp_path: Path) -> None:
    write(tmp_path, {"poetry.lock": POETRY, "pyproject.toml": POETRY_PROJECT})
    wanted = read(tmp_path / "poetry.lock")
    assert list(wanted.requirements) == [
        "Django",
        "numpy ; (platform_machine == 'x86_64')",
        f"forms @ git+https://git.test/forms.git@{'1' * 40}",
        "celery[redis] ; (python_full_version >= '3.11')",
    ]
    assert [(each.line().split(" \\")[0]) for each in wanted.constraints] == [
        "django==5.2",
        "numpy==1.26 ; python_full_version >= '3.9' and python_full_version < '3.12'",
        "numpy==2.2 ; python_full_version >= '3.12'",
    ]


def test_poetry_2_keeps_its_dependencies_in_the_project_table(tmp_path: Path) -> None:
    project = '[project]\nname = "shop"\ndependencies = ["Django (>=5.0,<6)", "celery[redis]>=5"]\n'
    write(tmp_path, {"poetry.lock": POETRY, "pyproject.toml": project})
    assert list(read(tmp_path / "poetry.lock").requirements) == ["Django", "celery[redis]"]


@pytest.mark.parametrize(
    ("poetry", "expected"),
    [
        ("^1.2.3", ">=1.2.3,<2"),
        ("^0.2.3", ">=0.2.3,<0.3"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("^4", ">=4,<5"),
        ("~1.2.3", ">=1.2.3,<1.3"),
        ("~1", ">=1,<2"),
        ("~=1.2", "~=1.2"),
        (">=1,<2", ">=1,<2"),
        ("1.2.3", "==1.2.3"),
        ("1.2.*", "==1.2.*"),
        ("*", ""),
    ],
)
def test_the_versions_of_poetry(poetry: str, expected: str) -> None:
    assert locks.caret(poetry) == expected


def test_pdm(tmp_path: Path) -> None:
    lock = f"""
[[package]]
name = "Django"
version = "5.2"
groups = ["default", "dev"]
requires_python = ">=3.10"
files = [{{file = "d.whl", hash = "{A}"}}]

[[package]]
name = "tzdata"
version = "2025"
groups = ["default"]
marker = "sys_platform == \\"win32\\""
files = [{{file = "t.whl", hash = "{B}"}}]

[[package]]
name = "forms"
version = "0.1"
groups = ["default"]
git = "https://git.test/forms.git"
revision = "{"1" * 40}"

[[package]]
name = "pytest"
version = "8"
groups = ["dev"]
files = []
"""
    write(tmp_path, {"pdm.lock": lock})
    assert list(read(tmp_path / "pdm.lock").packages) == [
        Package("django", "5.2", "", (A,)),
        Package("tzdata", "2025", 'sys_platform == "win32"', (B,)),
        Package("forms", "0.1", "", (), f"git+https://git.test/forms.git@{'1' * 40}"),
    ]


def test_pylock(tmp_path: Path) -> None:
    lock = f"""
lock-version = "1.0"
default-groups = ["main"]
[[packages]]
name = "django"
version = "5.2"
wheels = [{{ url = "https://index.test/d.whl", hashes = {{ sha256 = "{"a" * 64}" }} }}]
sdist = {{ url = "https://index.test/d.tar.gz", hashes = {{ sha256 = "{"b" * 64}" }} }}
[[packages]]
name = "main-only"
version = "1"
marker = "'main' in dependency_groups"
[[packages]]
name = "dev-only"
version = "1"
marker = "'dev' in dependency_groups"
[[packages]]
name = "extra-only"
version = "1"
marker = "'s3' in extras"
[[packages]]
name = "forms"
vcs = {{ type = "git", url = "https://git.test/forms.git", commit-id = "{"1" * 40}" }}
[[packages]]
name = "local"
directory = {{ path = "libs/local" }}
"""
    write(tmp_path, {"pylock.toml": lock})
    assert list(read(tmp_path / "pylock.toml").packages) == [
        Package("django", "5.2", "", (A, B)),
        Package("main-only", "1"),
        Package("forms", url=f"git+https://git.test/forms.git@{'1' * 40}"),
        Package("local", url=str(tmp_path / "libs/local")),
    ]


def test_a_pipfile_and_a_pyproject_of_poetry_without_their_locks(tmp_path: Path) -> None:
    pipfile = '[packages]\ndjango = "==5.*"\nredis = "*"\nx = {version = ">=1", extras = ["tls"]}\n'
    write(tmp_path, {"Pipfile": pipfile, "pyproject.toml": POETRY_PROJECT})
    assert list(read(tmp_path / "Pipfile").requirements) == ["django==5.*", "redis", "x[tls]>=1"]
    assert "Django>=5.0,<6" in read(tmp_path / "pyproject.toml").requirements


@pytest.mark.parametrize("name", ["Pipfile.lock", "pdm.lock", "poetry.lock", "pylock.toml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: "<<<<<<< HEAD\n"})
    with pytest.raises(PackError, match=f"Cannot read {tmp_path / name}"):
        read(tmp_path / name)
