"""docs/protocol.md and chat/protocol.py say the same names."""

import re
from pathlib import Path

from chat import protocol, rate

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def names(heading: str) -> set[str]:
    """Return the first column of the table whose first heading this is."""
    _, _, rest = PAGE.partition(f"\n| {heading} |")
    rows = rest.split("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_the_errors() -> None:
    assert names("error code") == {code.value for code in protocol.ErrorCode}


def test_the_limits() -> None:
    assert f"{protocol.MESSAGE_MAX_LENGTH} are allowed" in PAGE
    assert f"{protocol.IMAGE_MAX_BYTES} are allowed" in PAGE
    assert f"up to {protocol.CLIENT_ID_MAX_LENGTH} characters" in PAGE
    assert f"{protocol.HISTORY_PAGE} messages each" in PAGE
    assert f"the last {protocol.HISTORY_ON_CONNECT} messages" in PAGE
    assert f"1 to {protocol.DELAY_MAX} s" in PAGE
    assert f"at most `from` + {protocol.HISTORY_RANGE}" in PAGE
    assert f"{rate.FRAMES_PER_SECOND} frames a second, {rate.FRAMES_AT_ONCE} at once" in PAGE
    assert f"The {rate.REFUSED_IN_A_ROW}th refused frame" in PAGE


def test_the_close_codes_of_the_application() -> None:
    said = {int(code) for code in re.findall(r"^\| (4\d{3}) \|", PAGE, re.MULTILINE)}
    assert said == {int(code) for code in protocol.CloseCode}
