"""Files of a survey's archive: where they are, and how they come here whole, checked, and byte for byte.

What is downloaded lies in a folder that mirrors the archive's tree, under the names that the survey gave:
`load_survey` reads that folder as it reads any other. Downloads go through Datasets' `DownloadManager`, which shares
them out between threads; its own way to fetch a file neither resumes nor tries again (Datasets 5.2 ignores
`resume_download` and `max_retries` outside the Hub), so that part is here.
"""

import hashlib
import random
import re
import shutil
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import datasets
import requests
import urllib3
from datasets import DownloadConfig, DownloadManager
from datasets.utils.file_utils import get_datasets_user_agent
from filelock import FileLock
from fsspec.core import url_to_fs

from .fits_access import SpectrumFileError, raise_if_of_the_machine


MAX_CONNECTIONS = 8  # of one process at a time
MAX_RETRIES = 5  # without a byte of progress between them
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; each wait is twice the one before, give or take a quarter
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces
PIECE = 2**16  # bytes
RETRIED = (408, 429, 500, 502, 503, 504)  # HTTP statuses that may pass
#: Digits of a checksum -> its algorithm.
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}
CHECKSUM_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{32,64})\s+\*?(?P<name>.+)")


@dataclass(frozen=True)
class Address:
    """Where an archive keeps what one identifier stands for; paths are relative to the archive's base URL.

    Attributes:
        path: of the file that holds it.
        companions: paths of files that the reader looks into besides.
        checksums: path of the file with the checksums of these, in the format of ``sha256sum``; blank: there is none.
        members: if `path` is a tar file: names of the files in it, of which some may be missing.
        alternatives: paths of further tar files, looked through if no member is in the first.
        folder: path of the folder in which members come to lie, of theirs alone.
    """

    path: str
    companions: tuple[str, ...] = ()
    checksums: str = ""
    members: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    folder: str = ""


class TransientError(Exception):
    """A download that broke off, or was put off; it may be tried again, after `wait` seconds at the earliest."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


class Archive(DownloadManager):
    """Downloads into a mirror of archives' trees.

    Args:
        cache_dir: the mirror lies below it; by default the cache of Hugging Face Datasets.
    """

    def __init__(self, cache_dir: str | Path | None = None):
        self.root = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "downloads" / "archives"
        super().__init__(download_config=DownloadConfig(cache_dir=self.root))
        self._digests: dict[str, str] = {}
        self._failures: dict[str, SpectrumFileError] = {}
        self._connections = threading.local()
        self._turns = threading.Semaphore(MAX_CONNECTIONS)

    def fetch(self, urls: Iterable[str], digests: dict[str, str] | None = None) -> dict[str, SpectrumFileError]:
        """Download files that are not here yet.

        Args:
            urls: their addresses.
            digests: address -> checksum in hexadecimal digits, for those that have one.

        Returns:
            What the archive does not have or gives damaged: address -> why.

        Raises:
            ConnectionError: the archive cannot be reached, or breaks off again and again. What has come stays, also
                the part of a file: the next call goes on there.
        """
        self._digests, self._failures = digests or {}, {}
        if missing := [url for url in dict.fromkeys(urls) if not self.path_of(url).exists()]:
            self.download(missing)
        return self._failures

    def unpack(self, url: str, groups: Iterable[tuple[Path, ...]]) -> None:
        """Take files out of a tar file that is here, in one pass.

        Args:
            url: its address.
            groups: files that belong together, by where they come to lie: a folder of their own, which is there with
                all of them that the tar file has, or, if it has none, not at all.

        Raises:
            SpectrumFileError: it cannot be read to its end; then nothing is taken.
        """
        folders = {file.name: file.parent for group in groups for file in group}
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".unpacking-") as unfinished:
            try:
                for member, content in self.iter_archive(str(self.path_of(url))):
                    folder = folders.get(PurePosixPath(member).name)
                    if folder is not None:
                        path = Path(unfinished, folder.name, PurePosixPath(member).name)
                        path.parent.mkdir(exist_ok=True)
                        with open(path, "wb") as file:
                            shutil.copyfileobj(content, file)
            except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
                raise_if_of_the_machine(error, url)
                found = f"{type(error).__name__}: {error}"
                raise SpectrumFileError(url, "file", found, "a complete tar file") from error
            for folder in dict.fromkeys(folders.values()):
                if (unpacked := Path(unfinished, folder.name)).exists() and not folder.exists():
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    unpacked.rename(folder)

    def path_of(self, url: str) -> Path:
        """Where a file lies in the mirror.

        Raises:
            ValueError: the address has no file name, or leads out of the mirror.
        """
        parts = urlsplit(url)
        path = unquote(parts.path)
        names = [name for name in PurePosixPath(path).parts if name != "/"]
        if not parts.scheme or not names or path.endswith("/") or ".." in names:
            raise ValueError(
                f"{url}: found no name of a file; expected an address such as https://host/path/file.fits"
            )
        if parts.query:
            names[-1] += "_" + re.sub(r"[^\w.=&-]", "_", parts.query)
        return self.root.joinpath(re.sub(r"[^\w.-]", "_", parts.netloc or parts.scheme), *names)

    def _download_single(self, url_or_filename: str, download_config: DownloadConfig) -> str:
        url, path = url_or_filename, self.path_of(url_or_filename)
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with self._turns, FileLock(locks / hashlib.sha256(str(path).encode()).hexdigest()[:32]):
            if not path.exists():  # another process may have been here meanwhile
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f"{path.name}.incomplete")
                try:
                    self._receive_checked(url, partial)
                    partial.replace(path)
                except SpectrumFileError as error:
                    self._failures[url] = error
                    partial.unlink(missing_ok=True)
                validator_of(partial).unlink(missing_ok=True)
        return str(path)

    def _record_sizes_checksums(self, url_or_urls, downloaded_path_or_paths) -> None:
        """Nothing: what has a checksum was compared with it."""

    def _receive_checked(self, url: str, partial: Path) -> None:
        """Get a file, and once more from its beginning if its checksum is wrong."""
        for is_last in (False, True):
            self._receive_all(url, partial)
            try:
                return check_digest(url, partial, self._digests.get(url))
            except SpectrumFileError:
                partial.unlink()
                if is_last:
                    raise

    def _receive_all(self, url: str, partial: Path) -> None:
        """Try until the file is complete."""
        retries, wait = 0, FIRST_WAIT
        while True:
            before = size_of(partial)
            try:
                return receive(url, partial, self._session())
            except TransientError as error:
                if size_of(partial) > before:
                    retries, wait = 0, FIRST_WAIT
                retries += 1
                if retries > MAX_RETRIES:
                    raise ConnectionError(f"{url}: {error}; given up after {MAX_RETRIES} new attempts") from None
                time.sleep(max(wait * random.uniform(0.75, 1.25), error.wait))
                wait = min(2 * wait, LONGEST_WAIT)

    def _session(self) -> requests.Session:
        """One per thread: connections are kept open, and are not shared."""
        if not hasattr(self._connections, "session"):
            self._connections.session = requests.Session()
        return self._connections.session


def receive(url: str, partial: Path, session: requests.Session) -> None:
    """One attempt to get a file, or what is missing of it.

    The rest of a part is asked for on the condition that the file is still the same (`If-Range`); the validator that
    says so lies beside the part.

    Raises:
        TransientError: try again.
        SpectrumFileError: the archive does not have it.
        ConnectionError: it asks who one is.
    """
    if datasets.config.HF_HUB_OFFLINE:
        raise ConnectionError(f"{url}: found no file here; expected to be online, but HF_HUB_OFFLINE is set")
    if urlsplit(url).scheme not in ("http", "https"):
        file_system, path = url_to_fs(url)
        try:
            file_system.get_file(path, str(partial))
        except FileNotFoundError:
            raise SpectrumFileError(url, "download", "no such file", "a file of the archive") from None
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": get_datasets_user_agent()}
    start, validator = size_of(partial), validator_of(partial)
    if start and validator.exists():
        headers |= {"Range": f"bytes={start}-", "If-Range": validator.read_text()}
    try:
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            check_status(url, response, partial)
            write_body(response, partial, start)
    except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise TransientError(f"{type(error).__name__}: {error}") from error


def check_status(url: str, response: requests.Response, partial: Path) -> None:
    """Tell apart what may pass and what will not."""
    status = f"HTTP {response.status_code} {response.reason or ''}".strip()
    if response.status_code == 416:  # the part is longer than the file
        partial.unlink()
        raise TransientError(status)
    if response.status_code in RETRIED:
        wait = response.headers.get("Retry-After", "")
        raise TransientError(status, min(float(wait), LONGEST_WAIT) if wait.isdigit() else 0.0)
    if response.status_code == 401:  # all of it is closed, not this file damaged
        raise ConnectionError(f"{url}: found {status}; expected to be let in: name and password go into ~/.netrc")
    if response.status_code not in (200, 206):
        raise SpectrumFileError(url, "download", status, "a file of the archive")


def write_body(response: requests.Response, partial: Path, start: int) -> None:
    """Write what comes, undecoded: a ``.gz`` that is sent as an encoding stays a ``.gz``."""
    whole = response.headers.get("Content-Length")
    is_rest = response.status_code == 206
    if is_rest:
        first, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if first.partition("-")[0] != str(start):
            partial.unlink()
            raise TransientError(f"asked for the bytes from {start}, got {response.headers.get('Content-Range')!r}")
    etag = response.headers.get("ETag", "")
    validator = response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag
    validator = validator or response.headers.get("Last-Modified", "")
    if validator:
        validator_of(partial).write_text(validator)
    else:
        validator_of(partial).unlink(missing_ok=True)
    with open(partial, "ab" if is_rest else "wb") as file:
        for piece in response.raw.stream(PIECE, decode_content=False):
            file.write(piece)
    if whole and whole.isdigit() and size_of(partial) != int(whole):
        found = size_of(partial)
        if found > int(whole):
            partial.unlink()
        raise TransientError(f"{found} bytes of {whole}")


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def validator_of(partial: Path) -> Path:
    """The file that holds the part's ETag or Last-Modified."""
    return partial.with_name(f"{partial.name}.validator")


def check_digest(url: str, path: Path, expected: str | None) -> None:
    """Compare a file with its checksum, if it has one."""
    if not expected:
        return
    algorithm = ALGORITHMS[len(expected)]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected.lower():
        raise SpectrumFileError(url, algorithm, found, expected)


def read_checksums(text: str) -> dict[str, str]:
    """The format of ``sha256sum`` and its like: name without folders -> digest."""
    matches = (CHECKSUM_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {PurePosixPath(match["name"]).name: match["digest"] for match in matches if match}
