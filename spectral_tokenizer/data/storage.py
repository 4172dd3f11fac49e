"""Files on any fsspec file system that are there whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


@contextmanager
def write_aside(file_system: AbstractFileSystem, path: str, or_theirs: bool = False) -> Iterator[str]:
    """A path to write to, whose file is moved to `path` at the end; after an error it is removed.

    Args:
        or_theirs: another task may write the same file at once: where ours is gone and theirs is there, that will do.

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


def write_first(file_system: AbstractFileSystem, path: str, content: bytes) -> bytes:
    """Write a file unless it is there, and give what is there then.

    On a disk all tasks that begin together are given what the first has written. On others, and on disks without links,
    one may overwrite what another was given already: there whoever works by it asks again at the end. What killed runs
    left of it is removed.
    """
    if not file_system.exists(path):
        with write_aside(file_system, path, or_theirs=True) as unfinished:
            file_system.pipe_file(unfinished, content)
            if isinstance(file_system, LocalFileSystem):
                link(unfinished, path)
    sweep(file_system, path)
    return file_system.cat_file(path)


def link(unfinished: str, path: str) -> None:
    """Give a file its name, or remove it where another has that by now; where the disk has no links, leave it."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        pass
    except OSError:
        return
    with suppress(FileNotFoundError):  # another task, which saw the file by now, has swept
        os.remove(unfinished)


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
