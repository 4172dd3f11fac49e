"""What a user names as input, paths, addresses or identifiers, as files on this disk: `find_sources`."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from glob import has_magic
from pathlib import Path

from .archive import Archive, read_checksums
from .builder import SpectraBuilder
from .fits_access import SpectrumFileError
from .input_files import find_files


@dataclass(frozen=True)
class Remote:
    """One entry's files in an archive.

    Attributes:
        files: where they come to lie.
        urls: address of the file; or of tar files, to be looked through in turn until one has some of `files`.
        companions: addresses of files that the reader looks into besides.
        checksums: address of the checksums; blank: there are none.
        is_packed: `urls` are tar files.
    """

    files: tuple[Path, ...]
    urls: tuple[str, ...]
    companions: tuple[str, ...] = ()
    checksums: str = ""
    is_packed: bool = False


@dataclass
class Sources:
    """Input files, on disk or still in an archive.

    Attributes:
        files: paths on disk, sorted; those of an archive lie in its mirror, once they are fetched.
        entries: path -> the entry it comes from, of what is in an archive.
        survey: whose they are.
        base_url: of the survey's archive.
        archive: who fetches them.
    """

    files: list[str]
    entries: dict[str, str] = field(default_factory=dict)
    survey: type[SpectraBuilder] | None = None
    base_url: str = ""
    archive: Archive | None = None

    def fetch(self, files: Iterable[str]) -> dict[str, SpectrumFileError]:
        """Bring files here that are in an archive.

        Returns:
            Path -> why it did not come.

        Raises:
            ConnectionError: an archive cannot be reached.
        """
        wanted = dict.fromkeys(self.entries[file] for file in files if file in self.entries)
        remotes = [self.locate(entry) for entry in wanted]
        failures = self._fetch_files([remote for remote in remotes if not remote.is_packed])
        failures |= self._fetch_packed([remote for remote in remotes if remote.is_packed])
        return {str(file): error for remote, error in failures.items() for file in remote.files}

    def locate(self, entry: str) -> Remote:
        """Where an address or identifier leads.

        Raises:
            ValueError: the address is none, or the identifier says too little.
        """
        if "://" in entry:
            return Remote((self.archive.path_of(entry),), (entry,))
        address = self.survey.address(entry)
        url = partial("{}/{}".format, self.base_url)
        urls = tuple(map(url, (address.path, *address.alternatives)))
        folder = self.archive.path_of(url(address.folder)) if address.members else None
        return Remote(
            files=tuple(folder / name for name in address.members) or (self.archive.path_of(urls[0]),),
            urls=urls,
            companions=tuple(map(url, address.companions)),
            checksums=url(address.checksums) if address.checksums else "",
            is_packed=bool(address.members),
        )

    def key(self, file: str) -> str:
        """What a file is known by on every machine: its path, or what it is in the archive."""
        return f"{self.entries[file]}\0{os.path.basename(file)}" if file in self.entries else file

    def _fetch_files(self, remotes: list[Remote]) -> dict[Remote, SpectrumFileError]:
        missing = [remote for remote in remotes if not all(map(self._is_here, (*remote.urls, *remote.companions)))]
        sums = {remote.checksums for remote in missing if remote.checksums}
        absent = self.archive.fetch(sums) if sums else {}
        digests: dict[str, str] = {}
        for url in sums - set(absent):
            folder = url.rpartition("/")[0]
            published = read_checksums(self.archive.path_of(url).read_text())
            digests |= {f"{folder}/{name}": digest for name, digest in published.items()}
        urls = [url for remote in missing for url in (*remote.urls, *remote.companions)]
        failures = self.archive.fetch(urls, digests) if urls else {}
        return {
            remote: failures[url]
            for remote in missing
            for url in (*remote.companions, *remote.urls)
            if url in failures
        }

    def _is_here(self, url: str) -> bool:
        return self.archive.path_of(url).exists()

    def _fetch_packed(self, remotes: list[Remote]) -> dict[Remote, SpectrumFileError]:
        """Every tar file is fetched and read once, for all that may be in it."""
        failures: dict[Remote, SpectrumFileError] = {}
        for rank in range(max((len(remote.urls) for remote in remotes), default=0)):
            by_url: dict[str, list[Remote]] = defaultdict(list)
            for remote in remotes:
                if rank < len(remote.urls) and not remote.files[0].parent.exists():
                    by_url[remote.urls[rank]].append(remote)
            failed = self.archive.fetch(by_url) if by_url else {}
            for url, wanted in by_url.items():
                error = failed.get(url)
                try:
                    if error is None:
                        self.archive.unpack(url, [remote.files for remote in wanted])
                except SpectrumFileError as damage:
                    error = damage
                names = ", ".join(file.name for remote in wanted for file in remote.files[:1])
                error = error or SpectrumFileError(url, "members", "none of the name", f"files such as {names}")
                for remote in wanted:
                    failures.setdefault(remote, error)
        return {remote: error for remote, error in failures.items() if not remote.files[0].parent.exists()}


def find_sources(
    data_files: str | Path | int | Iterable[str | Path | int],
    survey: type[SpectraBuilder],
    base_url: str | None = None,
    cache_dir: str | Path | None = None,
) -> Sources:
    """Turn paths, globs, folders, addresses and identifiers into files; nothing is downloaded yet.

    Args:
        data_files: what `find_files` takes; addresses (``https://...``, or another of fsspec's protocols); identifiers
            as the survey's `address` takes them; or several of these.
        survey: whose files they are.
        base_url: of the survey's archive, or of a mirror of it. By default the environment variable
            SPECTRAL_TOKENIZER_{SURVEY}_URL, else the survey's own.
        cache_dir: where the mirror lies.

    Raises:
        FileNotFoundError: an entry is none of these, or nothing at all is found.
        ValueError: an identifier that says too little.
    """
    entries = [data_files] if isinstance(data_files, (str, Path, int)) else list(data_files)
    local, remote = [], []
    for entry in entries:
        (remote if is_remote(entry, survey) else local).append(entry)
    files = find_files(local, survey.FILE_NAMES) if local or not remote else []
    if not remote:
        return Sources(files)
    name = survey.__module__.split(".")[-1].upper()
    base_url = base_url or os.environ.get(f"SPECTRAL_TOKENIZER_{name}_URL") or survey.ARCHIVE
    sources = Sources(files, {}, survey, base_url.rstrip("/"), Archive(cache_dir))
    for entry in map(str, remote):
        sources.entries |= {str(file): entry for file in sources.locate(entry).files}
    sources.files = sorted({*files, *sources.entries})
    return sources


def is_remote(entry: str | Path | int, survey: type[SpectraBuilder]) -> bool:
    """Whether an entry is an address or identifier. What is on this disk goes first.

    Raises:
        FileNotFoundError: it is neither that nor a path.
    """
    if isinstance(entry, Path):
        return False
    text = str(entry)
    if "://" in text:
        return True
    # No identifier begins at the root: of a million paths each would be looked up here, too, before `find_files` does.
    if os.path.isabs(text) or has_magic(text) or Path(text).expanduser().exists():
        return False
    if survey.address(text) is None:
        raise FileNotFoundError(f"no such file or folder, and no identifier: {text}; expected {survey.IDENTIFIER}")
    return True
