"""A Python that the hosts do not have is brought by uv, and packed."""

import tarfile
from pathlib import Path

import pytest

from packing import PackError, python
from packing.uv import Uv

UV = """\
#!/bin/sh
echo "$UV_PYTHON_DOWNLOADS $*" >> "$0.asked"
[ ! -e "$0.fails" ] || { echo "error: no network" >&2; exit 1; }
for argument; do
    case $argument in
    --install-dir=*) directory=${argument#--install-dir=} ;;
    cpython-3.13-*) mkdir -p "$directory/cpython-3.13.9-linux-x86_64-gnu/bin" ;;
    esac
done
cd "$directory"
echo python > cpython-3.13.9-linux-x86_64-gnu/bin/python3.13
ln -s python3.13 cpython-3.13.9-linux-x86_64-gnu/bin/python3
ln -s cpython-3.13.9-linux-x86_64-gnu cpython-3.13-linux-x86_64-gnu
"""


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    program = tmp_path / "uv"
    program.write_text(UV)
    program.chmod(0o755)
    return Uv(program)


def test_it_is_brought_once_and_packed(uv: Uv, tmp_path: Path) -> None:
    output = tmp_path / "releases"
    assert python.bring(uv, "3.13", "x86_64", output) == "3.13.9"
    with tarfile.open(output / "python-3.13.9-x86_64.tar.gz") as archive:
        assert archive.getnames() == ["bin", "bin/python3", "bin/python3.13"]
        assert archive.getmember("bin/python3").linkname == "python3.13"
    assert python.bring(uv, "3.13", "x86_64", output) == "3.13.9"
    assert python.bring(uv, "3.13.9", "x86_64", output) == "3.13.9"
    asked = (tmp_path / "uv.asked").read_text().splitlines()
    assert len(asked) == 1
    # Only here may uv bring one, and without the settings of whatever project is around.
    assert asked[0].startswith("manual python install --no-bin --no-config")
    assert asked[0].endswith("cpython-3.13-linux-x86_64-gnu")


def test_what_uv_cannot_bring_is_refused_by_name(uv: Uv, tmp_path: Path) -> None:
    (tmp_path / "uv.fails").touch()
    with pytest.raises(PackError, match=r"3.13 for s390x \(channels_python\).*\n.*\n.*no network"):
        python.bring(uv, "3.13", "s390x", tmp_path / "releases")
