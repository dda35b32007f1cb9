import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

pytestmark = pytest.mark.django_db


@pytest.fixture
def ensure(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(users: object) -> list[str]:
        text = users if isinstance(users, str) else json.dumps(users)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        out = io.StringIO()
        call_command("ensure_users", stdout=out)
        return out.getvalue().splitlines()

    return run


def test_users_are_created_updated_and_left_alone(ensure: Any) -> None:
    assert ensure({"ada": "one", "bob": "two"}) == ["created ada", "created bob"]
    before = User.objects.get(username="bob").password
    assert ensure({"ada": "three", "bob": "two"}) == ["updated ada", "unchanged bob"]
    assert User.objects.get(username="ada").check_password("three")
    assert User.objects.get(username="bob").password == before


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ("nonsense", "not JSON"),
        ("", "not JSON"),
        ([], "not a JSON object"),
        ({"ada": 1}, "password of 'ada'"),
        ({"ada": ""}, "password of 'ada'"),
        ({"": "secret"}, "valid username"),
        ({"a b": "secret"}, "valid username"),
        ({"x" * 151: "secret"}, "longer than 150"),
    ],
)
def test_bad_input_is_explained_and_changes_nothing(ensure: Any, users: Any, words: str) -> None:
    if isinstance(users, dict):
        users = {"good": "secret"} | users
    with pytest.raises(CommandError, match=words) as error:
        ensure(users)
    assert "secret" not in str(error.value)
    assert not User.objects.exists()


def test_a_failure_on_the_way_changes_nothing(ensure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure({"bob": "two"})

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(User, "set_password", fail, raising=True)
    monkeypatch.setattr(User, "check_password", lambda *args: False)
    with pytest.raises(RuntimeError):
        ensure({"carl": "three", "bob": "other"})
    assert not User.objects.filter(username="carl").exists()
