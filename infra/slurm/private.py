"""Files that only their owner may read, from the first byte on."""

import os
from pathlib import Path

from trainwright.store.files import fsync_folder, temporary_name


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 atomically; at no time can anybody else read it."""
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
