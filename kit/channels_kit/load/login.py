"""How clients log in: one login for each user, few at a time."""

import asyncio
from collections.abc import Mapping
from time import time

from channels_kit.load.adapter import Adapter, Login, LoginRefused
from channels_kit.probe.socket import explain

LOGINS_AT_ONCE = 4
"""A password's hash is slow on purpose: more logins at once would only starve the worker."""

LEAST_VALIDITY = 60.0
"""Seconds that a login has to be good for; one with less is made anew."""


class LoginError(OSError):
    """There was no answer to a login; it may be asked for again."""


class Logins:
    """The users of a run, and the login of each.

    Args:
        users: the password of each.
        adapter: knows how to log in.
    """

    def __init__(self, users: Mapping[str, str], adapter: Adapter) -> None:
        self.users = users
        self.adapter = adapter
        self._logins: dict[str, Login] = {}
        # Why a user's login is refused: tried once, not once for each of the user's clients.
        self._refusals: dict[str, str] = {}
        # One login at a time for each user: whoever waits takes what the first was given.
        self._locks = {user: asyncio.Lock() for user in users}
        self._threads = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def token(self, base: str, user: str) -> str:
        """Return a token of the user that is good for a while, from the server `base` if need be.

        Raises:
            LoginRefused: the application refuses the user.
            LoginError: there was no answer.
        """
        async with self._locks[user]:
            if user in self._refusals:
                raise LoginRefused(self._refusals[user])
            login = self._logins.get(user)
            if login is None or login.expires_at < time() + LEAST_VALIDITY:
                async with self._threads:
                    login = await self._log_in(base, user)
                self._logins[user] = login
            return login.token

    async def _log_in(self, base: str, user: str) -> Login:
        try:
            return await asyncio.to_thread(self.adapter.log_in, base, user, self.users[user])
        except LoginRefused as error:
            self._refusals[user] = str(error)
            raise
        except OSError as error:
            raise LoginError(f"login: {explain(error)}") from error
