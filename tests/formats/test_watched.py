"""Files are read again when they change, and what is not good changes nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from lictor.formats.errors import UsageError
from lictor.formats.watched import Watched


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "one", "1")
    return tmp_path


def write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}")
    new.write_text(text)
    os.replace(new, path)


def watch(folder: Path) -> Watched[list[int]]:
    def load() -> list[int]:
        try:
            return [int(path.read_text()) for path in sorted(folder.iterdir())]
        except (OSError, ValueError) as e:
            raise UsageError(str(e)) from None

    return Watched("the numbers", folder.iterdir, load)


def test_what_changed_is_loaded_once(folder: Path) -> None:
    numbers = watch(folder)
    assert numbers.current == [1]
    assert not numbers.poll()
    write(folder / "one", "2")
    assert numbers.poll()
    assert numbers.current == [2]
    assert not numbers.poll()


def test_a_file_more_or_less_is_a_change(folder: Path) -> None:
    numbers = watch(folder)
    write(folder / "two", "2")
    assert numbers.poll()
    (folder / "one").unlink()
    assert numbers.poll()
    assert numbers.current == [2]


def test_the_same_size_and_time_in_another_file_is_a_change(folder: Path) -> None:
    numbers = watch(folder)
    before = (folder / "one").stat()
    write(folder / "new", "7")
    os.utime(folder / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(folder / "new", folder / "one")
    assert numbers.poll()
    assert numbers.current == [7]


def test_what_is_not_good_changes_nothing_and_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = watch(folder)
    write(folder / "one", "none")
    with caplog.at_level(logging.ERROR):
        assert not numbers.poll()
        assert not numbers.poll()
    assert numbers.current == [1]
    assert caplog.text.count("the numbers changed and cannot be taken, what there was stays in force") == 1
    write(folder / "one", "3")
    assert numbers.poll()


def test_a_directory_that_has_gone_is_no_error_of_looking(folder: Path) -> None:
    numbers = watch(folder)
    (folder / "one").unlink()
    folder.rmdir()
    assert not numbers.poll()
    assert numbers.current == [1]


def test_what_is_not_good_at_first_is_an_error(folder: Path) -> None:
    write(folder / "one", "none")
    with pytest.raises(UsageError, match="none"):
        watch(folder)
