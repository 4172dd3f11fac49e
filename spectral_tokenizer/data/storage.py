"""Files on any fsspec file system that are there whole or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fsspec import AbstractFileSystem


@contextmanager
def write_aside(file_system: AbstractFileSystem, path: str, or_theirs: bool = False) -> Iterator[str]:
    """A path to write to, whose file is moved to `path` at the end; after an error it is removed.

    Args:
        or_theirs: another task may write the same file at once: once its own is there and it has swept ours away, that
            will do.

    Raises:
        OSError: with the file's name, also where the system gives none, as of a full disk.
    """
    folder, slash, name = path.rpartition("/")
    unfinished = f"{folder}{slash}.{name}.{uuid.uuid4().hex[:8]}.unfinished"
    try:
        yield unfinished
        try:
            file_system.mv(unfinished, path)
        except FileNotFoundError:
            if not (or_theirs and file_system.exists(path)):
                raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = path
        if file_system.exists(unfinished):
            file_system.rm_file(unfinished)
        raise


def sweep(file_system: AbstractFileSystem, path: str) -> None:
    """Remove what killed runs left of a file that is there by now; and what others are writing of it in this moment, whose
    `write_aside` then raises FileNotFoundError, or takes the file that is there for theirs."""
    folder, slash, name = path.rpartition("/")
    folder = folder or slash or "."  # the root, or where one is
    file_system.invalidate_cache(folder)
    for found in file_system.ls(folder, detail=False):
        found_name = found.rstrip("/").rpartition("/")[2]
        if found_name.startswith(f".{name}.") and found_name.endswith(".unfinished"):
            with suppress(FileNotFoundError):  # moved to its place meanwhile
                file_system.rm_file(found)
