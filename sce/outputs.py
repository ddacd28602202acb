"""Files that commands write: whole or not at all, in places found fit before the work is done."""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sce.errors import InputError


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A name beside `file` to write to; what is there at the end takes the place of `file`.

    If the body fails nothing is left of it, and a `file` that was there stays. Permissions are
    those of any file that the user makes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(option: str, folder: Path) -> None:
    """See that files can be made in a folder, or that it can be made; nothing is left there.

    Args:
        option: what the user gave, for the message: "out=FILE".
        folder: there or not.

    Raises:
        InputError: nothing can be written there.
    """
    place = folder.absolute()
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(
            f"{option}: nothing can be written in the folder {place} ({error.strerror}); name "
            "another place"
        ) from None
