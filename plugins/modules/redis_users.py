#!/usr/bin/python
"""Ansible module: set the ACL users of a Redis instance."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_users
short_description: Set the ACL users of a Redis instance
description:
  - Compares the wanted users with the file of C(aclfile) and with the users of the running
    instance. Changes what differs, without a restart. So it also completes an interrupted run.
  - With O(state=present) Redis accepts the new password and the old ones, in memory and in the
    file. Clients with an old password stay connected, and can log in even after a restart.
  - With O(state=exact) Redis accepts only the wanted passwords, and other users are removed. Open
    connections of the wanted users stay open.
  - The hash of an empty password is removed in either state.
  - Redis itself compares the rules, so their notation does not matter.
  - If the instance is not running, only the file is written. Redis reads it when it starts.
  - If the instance refuses the administrator's password, only the file is written and
    RV(restart_required) is true.
options:
  address:
    description: Address on which the instance listens.
    type: str
    required: true
  port:
    description: The instance's port.
    type: int
    required: true
  path:
    description: The file that C(aclfile) names.
    type: path
    required: true
  owner:
    description: The user that the file belongs to.
    type: str
    default: redis
  group:
    description: The group that the file belongs to.
    type: str
    default: redis
  login_user:
    description: ACL user of the administrator. Must be one of O(users).
    type: str
    default: administrator
  login_password_file:
    description: A file that holds the administrator's password.
    type: path
    required: true
  state:
    description: V(present) keeps old passwords and other users. V(exact) removes them.
    type: str
    choices: [present, exact]
    default: present
  users:
    description: The wanted users. C(default) must be one of them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The user's name.
        type: str
        required: true
      enabled:
        description: Whether the user may log in.
        type: bool
        default: true
      password:
        description: The user's password. That of O(login_user) is in O(login_password_file).
        type: str
      rules:
        description: Keys, channels and commands as C(ACL SETUSER) takes them.
        type: str
        required: true
attributes:
  check_mode:
    support: full
    description: >-
      Can run in check mode. Redis compares the rules in a transaction that leaves nothing behind.
  diff_mode:
    support: full
    description: Shows how many passwords a user has. Shows no passwords and no hashes.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Configure | Add the current passwords and keep the old ones
  redis_users: &users
    address: 10.0.0.12
    port: 6379
    path: /etc/redis/layer.acl
    login_password_file: /etc/redis/administrator.password
    users:
      # Nobody logs in as default. Redis replays its append-only file as this user.
      - {name: default, enabled: false, rules: "~* &* +@all"}
      - {name: administrator, rules: "~* &* +@all"}
      - {name: channels, password: "{{ redis_layer_password }}", rules: "~* &* +@all -@admin"}

- name: Revoke | Remove old passwords
  redis_users:
    <<: *users
    state: exact
"""

RETURN = r"""
running:
  description: Whether the instance runs and accepted the wanted users.
  type: bool
  returned: success
restart_required:
  description: >-
    Whether the instance runs and refuses the administrator. It reads the file at its start.
  type: bool
  returned: success
users:
  description: Names of the users that were changed or removed in the running instance.
  type: list
  elements: str
  returned: success
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.private_file import put
from ansible.module_utils.redis_client import (
    LoginError,
    Redis,
    RedisError,
    log_in,
    pairs,
    read_password,
)

SCRATCH = "channels-kit-comparison"
"""The user by which Redis tells how it writes rules; it exists within a transaction alone."""


def digest(password: str) -> str:
    """Return what Redis keeps of a password."""
    return hashlib.sha256(password.encode()).hexdigest()


EMPTY = digest("")


@dataclass(frozen=True)
class User:
    """A user as wanted, or as a line of the file has it.

    Attributes:
        name: the name.
        enabled: whether they may log in.
        rules: keys, channels and commands.
        hashes: of the passwords by which they may.
    """

    name: str
    enabled: bool
    rules: tuple[str, ...]
    hashes: frozenset[str] = frozenset()

    @property
    def definition(self) -> list[str]:
        """All but the passwords, as ACL SETUSER takes it after a reset."""
        return ["on" if self.enabled else "off", *self.rules]

    @property
    def line(self) -> str:
        """The line of the file."""
        words = ["on" if self.enabled else "off", *(f"#{each}" for each in sorted(self.hashes))]
        return " ".join(["user", self.name, *words, *self.rules])


@dataclass(frozen=True)
class Known:
    """A user as the running instance knows them.

    Attributes:
        definition: all but the passwords, in Redis' words.
        hashes: of the passwords.
        open: whether any password is good.
    """

    definition: Mapping[str, Any]
    hashes: frozenset[str]
    open: bool

    @classmethod
    def read(cls, answer: list[Any] | None) -> Known | None:
        """Read the answer to ACL GETUSER."""
        if answer is None:
            return None
        found = pairs(answer)
        hashes = frozenset(found.pop("passwords"))
        flags = set(found.pop("flags"))
        # Others differ with the version and have no rule here.
        return cls({"enabled": "on" in flags, **found}, hashes, open="nopass" in flags)


def parse_file(content: str) -> dict[str, User]:
    """Return the users in a file; lines that are none are left out."""
    users = {}
    for line in content.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "user":
            continue
        rest = words[2:]
        users[words[1]] = User(
            name=words[1],
            enabled="on" in rest,
            rules=tuple(word for word in rest if word not in ("on", "off") and word[0] != "#"),
            hashes=frozenset(word[1:] for word in rest if word[0] == "#"),
        )
    return users


class Instance:
    """The users in the memory of a running instance.

    Args:
        server: a connection of the administrator.
    """

    def __init__(self, server: Redis) -> None:
        self.server = server

    def names(self) -> list[str]:
        """Return the names of all users."""
        return [name for name in self.server.ask("ACL", "USERS") if name != SCRATCH]

    def known(self, user: str) -> Known | None:
        """Return a user; None where there is none."""
        return Known.read(self.server.ask("ACL", "GETUSER", user))

    def in_its_words(self, user: User) -> Mapping[str, Any]:
        """Return the definition of a wanted user as this instance writes it."""
        answers = self.server.transaction(
            [
                ("ACL", "SETUSER", SCRATCH, "reset", *user.definition),
                ("ACL", "GETUSER", SCRATCH),
                ("ACL", "DELUSER", SCRATCH),
            ]
        )
        known = Known.read(answers[1])
        assert known is not None  # noqa: S101 - the first command was accepted
        return known.definition

    def set(self, user: User) -> None:
        """Make a user what is wanted, in one step."""
        cleared = ("resetpass", "resetkeys", "resetchannels", "clearselectors", "-@all")
        passwords = (f"#{each}" for each in sorted(user.hashes))
        self.server.ask("ACL", "SETUSER", user.name, *cleared, *passwords, *user.definition)

    def remove(self, user: str) -> None:
        """Remove a user; their connections are closed."""
        self.server.ask("ACL", "DELUSER", user)


def passwords_of(user: User, former: Iterable[str], exact: bool) -> User:
    """Return a wanted user with the former passwords that stay good."""
    if exact or not user.hashes:
        return user
    return replace(user, hashes=(user.hashes | frozenset(former)) - {EMPTY})


def summary(users: Iterable[tuple[str, Any, int]]) -> str:
    """Return users as a diff shows them: no password, and no hash of one."""
    return "".join(
        f"{name}: {definition}, passwords: {count}\n" for name, definition, count in sorted(users)
    )


def shown(definition: Mapping[str, Any]) -> str:
    """Return a definition in Redis' words as a diff shows it."""
    return ", ".join(f"{name}: {value}" for name, value in definition.items() if value != [])


def wanted_users(module: AnsibleModule, password: str) -> list[User]:
    """Return the users that a task asks for, or fail."""
    users = []
    for given in module.params["users"]:
        name, secret = given["name"], given["password"]
        if name == module.params["login_user"]:
            secret = password
        if secret == "":
            module.fail_json(msg=f"The password of the user {name} is empty. Nothing changed.")
        if given["enabled"] and secret is None:
            module.fail_json(msg=f"The user {name} has no password. Nothing changed.")
        users.append(
            User(
                name=name,
                enabled=given["enabled"],
                rules=tuple(given["rules"].split()),
                hashes=frozenset() if secret is None else frozenset({digest(secret)}),
            )
        )
    missing = {"default", module.params["login_user"]} - {user.name for user in users}
    if missing:
        module.fail_json(msg=f"users must include {', '.join(sorted(missing))}. Nothing changed.")
    return users


def bring(
    instance: Instance, wanted: list[User], exact: bool, check: bool
) -> tuple[list[User], list[str], dict[str, str]]:
    """Bring the memory of an instance to what is wanted.

    Returns:
        The wanted users with the passwords that are good now, the names of those who differed,
        and a diff.
    """
    good, differing = [], []
    before, after = [], []
    for user in wanted:
        known = instance.known(user.name)
        target = passwords_of(user, known.hashes if known else (), exact)
        definition = instance.in_its_words(target)
        good.append(target)
        if known == Known(definition, target.hashes, open=False):
            continue
        differing.append(user.name)
        if known:
            text = shown(known.definition) + (" any password" if known.open else "")
            before.append((user.name, text, len(known.hashes)))
        after.append((user.name, shown(definition), len(target.hashes)))
        if not check:
            instance.set(target)
    if exact:
        for name in sorted(set(instance.names()) - {user.name for user in wanted}):
            differing.append(name)
            before.append((name, "not wanted", 0))
            if not check:
                instance.remove(name)
    return good, differing, {"before": summary(before), "after": summary(after)}


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "default": "redis"},
            "group": {"type": "str", "default": "redis"},
            "login_user": {"type": "str", "default": "administrator"},
            "login_password_file": {"type": "path", "required": True, "no_log": False},
            "state": {"type": "str", "choices": ["present", "exact"], "default": "present"},
            "users": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "enabled": {"type": "bool", "default": True},
                    "password": {"type": "str", "no_log": True},
                    "rules": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    exact = module.params["state"] == "exact"
    try:
        password = read_password(module.params["login_password_file"])
    except (OSError, ValueError) as error:
        if module.check_mode:
            # A dry run has not made it.
            module.exit_json(changed=True, running=False, restart_required=False, users=[])
        module.fail_json(msg=f"Reading the administrator's password failed: {error}")
    wanted = wanted_users(module, password)
    path = Path(module.params["path"])
    content = path.read_text() if path.exists() else ""
    others = (
        []
        if exact
        else [
            user
            for name, user in parse_file(content).items()
            if name not in {u.name for u in wanted}
        ]
    )
    running, refused, differing, diff = False, False, list[str](), {"before": "", "after": ""}
    try:
        server = log_in(
            module.params["address"], module.params["port"], module.params["login_user"], password
        )
    except LoginError:
        server, refused = None, True
    if server is None:
        former = parse_file(content)
        good = [
            passwords_of(user, former[user.name].hashes if user.name in former else (), exact)
            for user in wanted
        ]
    else:
        running = True
        try:
            with server:
                good, differing, diff = bring(Instance(server), wanted, exact, module.check_mode)
        except (RedisError, OSError) as error:
            module.fail_json(msg=f"Redis refused to change its users: {error}")
    lines = "".join(f"{user.line}\n" for user in [*good, *others])
    attributes = {"owner": module.params["owner"], "group": module.params["group"], "mode": "0640"}
    rewritten = put(module, path, lines if lines != content else None, attributes)
    if rewritten and not differing:
        diff["before"] += f"{path}: not as wanted\n"
        diff["after"] += f"{path}: as wanted\n"
    module.exit_json(
        changed=bool(differing or rewritten or refused),
        running=running,
        restart_required=refused,
        users=differing,
        diff=diff,
    )


if __name__ == "__main__":
    main()
