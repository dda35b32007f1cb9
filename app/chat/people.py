from typing import NamedTuple


class Person(NamedTuple):
    """A user as a socket keeps them: a model's instance would take kilobytes in each of thousands.

    Attributes:
        id: the user's primary key.
        name: the user's name, which others see.
    """

    id: int
    name: str
