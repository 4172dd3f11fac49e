"""Which files a survey is built from, and how a changed one is noticed."""

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path
from textwrap import shorten


def find_files(data_files: str | Path | Iterable[str | Path], file_names: Iterable[str]) -> list[str]:
    """Turn paths, globs and folders into a sorted list of files without repetitions.

    Args:
        data_files: a path, a glob (``**`` allowed), a folder, or several of these. What is named or globbed is taken
            whatever its name; a folder is searched to any depth for `file_names`, links followed. A link is a file of
            its own name, but of several paths to one file only one is taken.
        file_names: the survey's file names, as glob patterns.

    Raises:
        FileNotFoundError: a path does not exist, or nothing is found for one of the entries.
    """
    entries = [data_files] if isinstance(data_files, (str, Path)) else list(data_files)
    is_wanted = re.compile("|".join(fnmatch.translate(pattern) for pattern in file_names)).match
    found = {str(entry): dict(_files_of(entry, is_wanted)) for entry in entries}
    empty = [entry for entry, files in found.items() if not files]
    if empty or not found:
        names = shorten(", ".join(file_names), 120, placeholder=", ...")
        raise FileNotFoundError(
            f"no files for {empty}; in folders looked for {names}. A file that is named by itself may have any name"
        )
    return without_repetitions({path: target for files in found.values() for path, target in files.items()}, is_wanted)


def without_repetitions(files: dict[str, str], is_wanted: Callable[[str], object]) -> list[str]:
    """One path of each file, sorted: of several that lead there the one whose name a reader knows, else the file's own.

    Args:
        files: path -> where it leads, if it is a link.
        is_wanted: whether a name is the survey's; what links lead to may be named by a hash, as in the Hub's cache.
    """
    chosen: dict[str, str] = {}
    for path in sorted(files, key=lambda path: (not is_wanted(os.path.basename(path)), path != files[path], path)):
        chosen.setdefault(files[path], path)
    return sorted(chosen.values())


def _files_of(entry: str | Path, is_wanted: Callable[[str], object]) -> Iterator[tuple[str, str]]:
    """Paths, and where they lead. A link keeps its name, as names say what a file is and what stands beside it; its
    folder is the one that it truly lies in, whichever way led there."""
    for path in _expand(entry):
        if path.is_dir():
            yield from _search(path, is_wanted)
        elif path.is_file():
            yield os.path.join(os.path.realpath(path.parent), path.name), os.path.realpath(path)


def _search(folder: Path, is_wanted: Callable[[str], object]) -> Iterator[tuple[str, str]]:
    """Files below a folder by their names. A folder may hold millions: only links are asked where they lead."""
    waiting = [os.path.realpath(folder)]
    seen = set(waiting)  # links may lead in a circle
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                target = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if entry.is_dir():
                    if target not in seen:
                        seen.add(target)
                        waiting.append(target)
                elif is_wanted(entry.name) and (not entry.is_symlink() or os.path.isfile(target)):
                    yield entry.path, target


def _expand(entry: str | Path) -> list[Path]:
    path = Path(entry).expanduser()
    if path.exists():
        return [path]
    if has_magic(str(path)):
        return [Path(match) for match in sorted(glob(str(path), recursive=True))]
    raise FileNotFoundError(f"no such file or folder: {path}")


def fingerprint(files: Iterable[str]) -> str:
    """A short hash that changes when a file is added, removed, renamed or written to: of names, sizes and times."""
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(file)
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
