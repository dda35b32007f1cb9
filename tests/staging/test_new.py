"""make new: an inventory from three facts, with secrets that nobody sees."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small project in a directory below the top."""
    top = tmp_path / "source"
    files = {
        "backend/manage.py": "import os, django\nfrom django.core.management import x\n"
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n',
        "backend/shop/__init__.py": "",
        "backend/shop/settings.py": 'INSTALLED_APPS = ["django.contrib.staticfiles"]\n',
        "backend/shop/asgi.py": "application = object()\n",
        "requirements.txt": "django\n",
    }
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content)
    return top


def new(
    tmp_path: Path, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if "VAULT" not in key}
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / "scripts" / "new.py"),
            *map(str, arguments),
            f"--inventories={tmp_path / 'inventories'}",
        ],
        env={**variables, **environment},
        text=True,
        capture_output=True,
        timeout=60,
    )


def test_the_inventory_has_three_facts_and_secrets(tmp_path: Path, source: Path) -> None:
    result = new(tmp_path, "prod", source, "chat.example.org")
    assert result.returncode == 0, result.stderr
    variables = tmp_path / "inventories" / "prod" / "group_vars" / "all"
    cluster = yaml.safe_load((variables / "cluster.yml").read_text())
    assert cluster == {
        "ansible_become": True,
        "cluster_server_names": ["chat.example.org"],
        "channels_source": str(source),
    }
    vault = yaml.safe_load((variables / "vault.yml").read_text())
    assert {"channels_secret_key", "channels_probe_token", "postgres_password"} <= set(vault)
    assert not [name for name in vault if name.startswith("sample_")]
    assert all(re.fullmatch("[0-9a-f]{64}", str(value)) for value in vault.values())
    assert len(set(vault.values())) == len(vault)
    assert stat.S_IMODE((variables / "vault.yml").stat().st_mode) == 0o600
    assert (variables / ".gitignore").read_text().endswith("vault.yml\n")
    for words in ("shop.settings", "shop.asgi:application", "in backend", "requirements.txt"):
        assert words in result.stdout
    for value in vault.values():
        assert str(value) not in result.stdout + result.stderr


@pytest.mark.parametrize("name", ["requirements/production.txt", "setup.cfg", "uv.lock"])
def test_the_packages_are_those_of_a_deploy(tmp_path: Path, source: Path, name: str) -> None:
    (source / "requirements.txt").unlink()
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("[options]\ninstall_requires = django\n")
    result = new(tmp_path, "prod", source, "chat.example.org")
    assert re.search(rf"packages: +{re.escape(name)}\n", result.stdout), result.stdout


def test_several_projects_get_an_inventory_and_what_to_set(tmp_path: Path, source: Path) -> None:
    """The variable that chooses one needs an inventory."""
    shutil.copytree(source / "backend", source / "second")
    result = new(tmp_path, "prod", source, "chat.example.org")
    assert result.returncode == 0, result.stderr
    assert "Set channels_root to the directory of one: backend, second\n" in result.stdout
    assert (tmp_path / "inventories/prod/hosts.yml").exists()


def test_the_next_step_is_said(tmp_path: Path, source: Path) -> None:
    without = new(tmp_path, "one", source, "chat.example.org").stdout
    assert re.search(r"Next: set your hosts in .*/one/hosts.yml, then make check ENV=one", without)
    assert "SSH connects" not in without
    addresses = new(tmp_path, "two", source, "chat.example.org", "--hosts=10.0.0.1").stdout
    assert "Next: make check ENV=two" in addresses
    assert "SSH connects" not in addresses
    names = new(tmp_path, "three", source, "chat.example.org", "--hosts=lb=10.0.0.1").stdout
    assert "SSH connects to lb by these names." in names


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    # ansible-vault reads the password and waits.
    password = tmp_path / "password"
    os.mkfifo(password)
    process = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "scripts" / "new.py"), "prod", str(ROOT / "app")),
            *("chat.example.org", f"--inventories={tmp_path / 'inventories'}"),
        ],
        env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(password)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # Opens when the other side does.
    with password.open("w"):
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("Interrupted. Nothing changed.\n")
    assert "new.py" not in errors
    assert list((tmp_path / "inventories").iterdir()) == []


@pytest.mark.parametrize(
    ("hosts", "apps"),
    [
        ("", ["app1.example.org", "app2.example.org"]),
        ("10.0.0.11", ["10.0.0.11"]),
        ("data=10.0.0.20,one=10.0.0.11,two=10.0.0.12", ["one", "two"]),
    ],
)
def test_ansible_reads_the_hosts(tmp_path: Path, source: Path, hosts: str, apps: list[str]) -> None:
    result = new(tmp_path, "prod", source, "chat.example.org", f"--hosts={hosts}")
    assert result.returncode == 0, result.stderr
    told = subprocess.run(
        [str(BIN / "ansible-inventory"), "-i", str(tmp_path / "inventories/prod"), "--list"],
        text=True,
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    listed = yaml.safe_load(told.stdout)
    assert listed["channels"]["hosts"] == apps
    assert {"nginx", "channels", "postgres", "redis"} <= set(listed)
    values = listed["_meta"]["hostvars"]
    assert all(values[name]["cluster_address"] for name in apps)
    assert values[apps[0]]["cluster_server_names"] == ["chat.example.org"]


def test_with_a_password_the_secrets_are_encrypted(tmp_path: Path, source: Path) -> None:
    password = tmp_path / "password"
    password.write_text("of-the-vault\n")
    result = new(
        tmp_path, "prod", source, "chat.example.org", ANSIBLE_VAULT_PASSWORD_FILE=str(password)
    )
    assert result.returncode == 0, result.stderr
    vault = tmp_path / "inventories/prod/group_vars/all/vault.yml"
    assert vault.read_text().startswith("$ANSIBLE_VAULT;")
    shown = subprocess.run(
        [str(BIN / "ansible-vault"), "view", "--vault-password-file", str(password), str(vault)],
        text=True,
        capture_output=True,
        check=True,
    )
    assert "channels_secret_key" in yaml.safe_load(shown.stdout)
    assert not (vault.parent / ".gitignore").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Prod!", ".", "chat.example.org"], "ENV is 'Prod!'"),
        (["prod", "/nowhere/at/all", "chat.example.org"], "SOURCE is '/nowhere/at/all'"),
        (["prod", ".", "https://chat.example.org"], "DOMAIN is 'https://chat.example.org'"),
        (["prod", ".", "chat.example.org:8080"], "DOMAIN is 'chat.example.org:8080'"),
        (["prod", ".", ""], "usage: make new"),
        (["prod", "http://git.example.org/a.git", "a.example.org"], "allowed: https://"),
        (["prod", "https://me:pw@git.example.org/a.git", "a.example.org"], "without a password"),
        (["prod", str(ROOT / "README.md"), "chat.example.org"], "README.md is none of these"),
        (["prod", str(ROOT / "docs"), "chat.example.org"], "no manage.py and no asgi.py"),
        (["prod", ".", "a.example.org", "--hosts=lb=10.0.0.999"], "the address '10.0.0.999'"),
        (["prod", ".", "a.example.org", "--hosts=lb=10.0.0.1,lb"], "names a host twice"),
    ],
)
def test_a_wrong_argument_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = new(tmp_path, *arguments)
    assert result.returncode == 1
    assert words in result.stderr
    assert result.stderr.endswith("Nothing changed.\n")
    assert not (tmp_path / "inventories" / "prod").exists()


def test_an_inventory_that_exists_is_left_alone(tmp_path: Path, source: Path) -> None:
    assert new(tmp_path, "prod", source, "chat.example.org").returncode == 0
    vault = tmp_path / "inventories/prod/group_vars/all/vault.yml"
    before = vault.read_text()
    result = new(tmp_path, "prod", source, "other.example.org")
    assert result.returncode == 1
    assert "exists. Choose another ENV, or change its files.\nNothing changed." in result.stderr
    assert vault.read_text() == before


def test_a_failure_leaves_nothing(tmp_path: Path, source: Path) -> None:
    result = new(
        tmp_path, "prod", source, "chat.example.org", ANSIBLE_VAULT_PASSWORD_FILE="/nowhere"
    )
    assert result.returncode == 1
    assert "Nothing changed." in result.stderr
    assert list((tmp_path / "inventories").iterdir()) == []


def test_a_git_url_is_taken_as_it_is(tmp_path: Path) -> None:
    url = "git@git.example.org:shop/shop.git"
    result = new(tmp_path, "prod", url, "chat.example.org")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "inventories/prod/group_vars/all/cluster.yml").read_text()
    assert yaml.safe_load(text)["channels_source"] == url
    assert "found when it is packed" in result.stdout
    assert "add channels_source_ref" in result.stdout
