"""Which files a survey is built from, and how a changed one is noticed."""

import fnmatch
import functools
import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path
from textwrap import shorten

from .fits_access import SpectrumFileError


logger = logging.getLogger(__name__)

STATE = "state.json"  # what `save_to_disk` writes beside rows: which files they are
LEFT_OVER = re.compile(r"(cache-|tmp).*\.arrow")  # names that Datasets gives to results of `map` and the like


def find_files(data_files: str | Path | Iterable[str | Path], file_names: Iterable[str]) -> list[str]:
    """Turn paths, globs and folders into a sorted list of files without repetitions.

    Args:
        data_files: a path, a glob (``**`` allowed), a folder, or several of these. What is named or globbed is taken
            whatever its name; a folder is searched to any depth for `file_names`, links followed. A link is a file of
            its own name, but of several paths to one file only one is taken. Where Datasets wrote Arrow, the rows
            alone are taken: `without_left_overs`.
        file_names: the survey's file names, as glob patterns.

    Raises:
        ValueError: an entry is empty, which would be the working directory.
        FileNotFoundError: a path does not exist, a link leads nowhere, nothing is found for one of the entries, or a
            file of a folder of `save_to_disk` is missing.
        SpectrumFileError: such a folder's state cannot be read.
        OSError: a folder cannot be read.
    """
    entries = [data_files] if isinstance(data_files, (str, Path)) else list(data_files)
    if blank := [entry for entry in entries if not str(entry).strip()]:
        raise ValueError(f"files: expected paths, found: {blank}; of the working directory say '.'")
    is_wanted = re.compile("|".join(fnmatch.translate(pattern) for pattern in file_names)).match
    real_path = functools.cache(os.path.realpath)  # of folders, which many files share
    found = {str(entry): dict(_files_of(entry, is_wanted, real_path)) for entry in entries}
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


def _files_of(
    entry: str | Path, is_wanted: Callable[[str], object], real_path: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    """Paths, and where they lead. A link keeps its name, as names say what a file is and what stands beside it; its
    folder is the one that it truly lies in, whichever way led there. What is no link is asked for once: of a million
    files that are named one by one, each question is another to the file system.

    Raises:
        FileNotFoundError: a path does not exist, or is a link that leads nowhere.
    """
    for path in _expand(entry):
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            raise FileNotFoundError(f"no such file or folder: {path}") from None
        is_link = stat.S_ISLNK(mode)
        if is_link:
            check_link(path)
            mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            yield from _search(path, is_wanted)
        elif stat.S_ISREG(mode):
            folder, name = os.path.split(path)
            own = os.path.join(real_path(folder), name)
            yield own, os.path.realpath(path) if is_link else own


def _search(folder: Path, is_wanted: Callable[[str], object]) -> Iterator[tuple[str, str]]:
    """Files below a folder by their names. A folder may hold millions: only links are asked where they lead."""
    waiting = [os.path.realpath(folder)]
    seen = set(waiting)  # links may lead in a circle
    while waiting:
        place, found = waiting.pop(), []
        with os.scandir(place) as entries:
            for entry in entries:
                is_link = entry.is_symlink()
                target = os.path.realpath(entry.path) if is_link else entry.path
                # A name without an ending may be a folder's; that of a hidden one, an editor's lock of a file.
                if is_link and (is_wanted(entry.name) or "." not in entry.name):
                    check_link(entry.path)
                if entry.is_dir():
                    if target not in seen:
                        seen.add(target)
                        waiting.append(target)
                elif is_wanted(entry.name) and (not is_link or entry.is_file()):
                    found.append((entry.name, target))
        names = without_left_overs(place, [name for name, _ in found])
        yield from ((os.path.join(place, name), target) for name, target in found if name in names)


def check_link(path: str | Path) -> None:
    """Raise FileNotFoundError for a link that leads nowhere: its file, or all of its folder, would be left out unnoticed."""
    try:
        os.stat(path)
    except FileNotFoundError:
        found = f"found one to {os.readlink(path)}, where nothing is"
        raise FileNotFoundError(f"{path}: expected a link to a file or folder, {found}") from None


def without_left_overs(folder: str, names: list[str]) -> set[str]:
    """Names of files in a folder, without the Arrow files that hold its rows a second time, or as they once were: of an
    earlier `save_to_disk`, which its state does not name, and what `map` and the like keep beside rows.

    Raises:
        FileNotFoundError, SpectrumFileError: as `find_files`.
    """
    if not any(name.endswith(".arrow") for name in names):
        return set(names)
    saved = saved_files(os.path.join(folder, STATE))
    if saved is None:
        kept = {name for name in names if not LEFT_OVER.fullmatch(name)}
    elif missing := sorted(saved - set(names)):
        raise FileNotFoundError(f"{folder}: expected the files that {STATE} there names, found no {missing[0]}")
    else:
        kept = saved
    if others := sorted(set(names) - kept):
        logger.warning(
            "%s: left out %d files that are no rows saved there, such as %s", folder, len(others), others[0]
        )
    return kept


def saved_files(path: str) -> set[str] | None:
    """The files that a state of `save_to_disk` names; None where there is none."""
    try:
        state = json.loads(Path(path).read_text())
        return {each["filename"] for each in state["_data_files"]} if "_data_files" in state else None
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        found = f"{type(error).__name__}: {error}"
        raise SpectrumFileError(path, "file", found, "what save_to_disk writes") from error


def _expand(entry: str | Path) -> list[Path]:
    """The paths of a glob; another entry as it is, be it there or not."""
    path = Path(entry).expanduser()
    if not has_magic(str(path)) or path.exists():
        return [path]
    check_folders(path)
    return [Path(match) for match in sorted(glob(str(path), recursive=True))]


def check_folders(pattern: Path) -> None:
    """Raise OSError for a folder on a glob's way that cannot be read: `glob` passes over it without a word."""
    steps = [".", *pattern.parts]
    for depth in range(1, len(steps)):
        for folder in glob(os.path.join(*steps[:depth], ""), recursive=True):
            os.stat(f"{folder}.")  # names may be looked up in it
            if has_magic(steps[depth]):
                os.scandir(folder).close()  # and listed


def fingerprint(files: Iterable[str]) -> str:
    """A short hash that changes when a file is added, removed, renamed or written to: of names, sizes and times."""
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(file)
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
