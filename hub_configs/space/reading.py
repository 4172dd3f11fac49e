"""Files of strangers -> rows, and words about them: every request is read in a process of its own.

A server that has the readers imported forks for each request. A file that makes a reader hang or fill the memory ends
its own process and no other: the kernel watches its time (SIGALRM), its memory and what it writes (`setrlimit`).
Answers come as Arrow with the words as JSON beside, so nothing is ever unpickled.

    Reader.read(files) ──socket──> fork ──> read_files ──> inspect_files ──Arrow──> Reading
"""

import io
import json
import logging
import os
import resource
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from spectral_tokenizer.data import SURVEYS
from spectral_tokenizer.data.fits_access import SpectrumFileError, open_fits
from spectral_tokenizer.data.inspection import Inspection, inspect_files
from spectral_tokenizer.data.packing import arrays_of
from spectral_tokenizer.data.tables import to_table


MAX_SPECTRA = 50  # kept of what is dropped together; all are counted
MAX_PIXELS = 50_000  # of one spectrum: GALAH, the longest, has 16,400
MAX_WRITTEN = 2**32  # bytes: what a gzipped file may unpack to on disk
MAX_TEXT = 400  # characters of what was found
PATIENCE = 5  # seconds beyond a process's own limit
SIZE = struct.Struct(">Q")
SERVER = Path(__file__).resolve()  # the script that is started

logger = logging.getLogger(__name__)


@dataclass
class Reading:
    """What became of files that were dropped together.

    Attributes:
        units: per unit of files what it holds, as `describe` has it.
        rows: the first `MAX_SPECTRA` spectra, with the columns of `spectral_tokenizer.data.schema.FEATURES`.
        problem: why there is nothing at all, in words for the visitor; None otherwise.
    """

    units: list[dict] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    problem: str | None = None


# In the process that reads


def read_files(files: list[str]) -> tuple[list[dict], list[dict]]:
    """Words about each unit of files, and the rows of the first spectra."""
    files = [os.path.realpath(file) for file in files]
    beside = companions(files)
    units, rows = [], []
    for found in inspect_files([file for file in files if file not in beside], SURVEYS, num_examples=MAX_SPECTRA):
        is_simulated = bool(found.dropped["simulated"])
        if is_simulated and not found.num_spectra:  # nothing else in it: then it is what the visitor wants to see
            (found,) = inspect_files(found.files, SURVEYS, num_examples=MAX_SPECTRA, simulated=True)
        short = [row for row in found.examples if len(row["flux"]) <= MAX_PIXELS]
        if len(short) < len(found.examples):
            found.dropped[f"more than {MAX_PIXELS} pixels"] += len(found.examples) - len(short)
        kept = short[: MAX_SPECTRA - len(rows)]
        rows += kept
        is_simulated |= found.num_spectra > 0 and says_simulated(found.files[0])
        units.append(describe(found, beside) | {"kept": len(kept), "is_simulated": is_simulated})
    return units, rows


def companions(files: list[str]) -> set[str]:
    """Those of the files in which a reader finds labels of others, such as DESI's redrock beside a coadd."""
    found = set()
    for survey in SURVEYS.values():
        for file in files:
            beside = survey.BUILDER_CONFIG_CLASS(files=(file,)).companions()
            found.update(each for each in beside if each != file)
    return found & set(files)


def says_simulated(file: str) -> bool:
    """Whether a file's first header says that it is no observation."""
    try:
        with open_fits(file) as hdus:
            return hdus[0].header.get("SIMULATE") is True
    except SpectrumFileError:
        return False


def describe(found: Inspection, beside: set[str]) -> dict:
    """One unit of files as JSON can have it: numbers, counts and reasons."""
    folder = os.path.commonpath([os.path.dirname(file) for file in found.files])
    damage = None
    if found.damage is not None:
        _, where, what, expected = found.damage.args
        texts = (text.replace(folder + os.sep, "") for text in (where, what, expected))
        damage = dict(zip(("field", "found", "expected"), map(shorten, texts)))
    return {
        "files": [printable(file) for file in found.files],
        "beside": [printable(file) for file in sorted(beside) if os.path.dirname(file) == folder],
        "survey": found.survey,
        "product": printable(found.product),
        "num_spectra": found.num_spectra,
        "num_pixels": list(found.num_pixels),
        "wavelength_range": [number if np.isfinite(number) else None for number in found.wavelength_range],
        "frames": dict(found.frames),
        "snr": float(np.median(found.snr)) if found.snr else None,
        "usable": float(np.mean(found.usable)) if found.usable else None,
        "classes": dict(found.classes),
        "dropped": dict(found.dropped),
        "damage": damage,
    }


def printable(path: str) -> str:
    """A file's name as text, whatever its bytes are."""
    return os.path.basename(path).encode("utf-8", "backslashreplace").decode()


def shorten(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …"


def encode(units: list[dict], rows: list[dict], problem: str | None = None) -> bytes:
    """An answer as bytes: `decode` reads it."""
    words = json.dumps({"units": units, "problem": problem})
    buffer = io.BytesIO()
    if rows:
        table = to_table(rows)
        with pa.ipc.new_stream(buffer, table.schema) as writer:
            writer.write_table(table)
    head = words.encode()
    return SIZE.pack(len(head)) + SIZE.pack(buffer.tell()) + head + buffer.getvalue()


def decode(answer: bytes) -> Reading | None:
    """An answer from its bytes; None if it breaks off."""
    if len(answer) < 2 * SIZE.size:
        return None
    (head,), (body,) = SIZE.unpack_from(answer), SIZE.unpack_from(answer, SIZE.size)
    start = 2 * SIZE.size
    if len(answer) != start + head + body:
        return None
    words, rows = json.loads(answer[start : start + head]), []
    if body:
        table = pa.ipc.open_stream(answer[start + head :]).read_all()
        columns = {name: arrays_of(table[name].combine_chunks()) for name in table.column_names}
        rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    return Reading(words["units"], rows, words["problem"])


def limit(seconds: int, megabytes: int) -> None:
    """Let the kernel end this process after some seconds, and refuse it memory and disk beyond its share."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_WRITTEN, MAX_WRITTEN))
    status = Path("/proc/self/status")
    if status.exists():  # the shared libraries' own data count as well
        in_use = int(status.read_text().split("VmData:")[1].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (in_use + megabytes * 2**20,) * 2)


class Handler(socketserver.StreamRequestHandler):
    """One request, in the process that was forked for it."""

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        limit(request["seconds"], request["megabytes"])
        tempfile.tempdir = request["scratch"]
        try:
            answer = encode(*read_files(request["files"]))
        except MemoryError:
            answer = encode([], [], f"Found files that need more than {request['megabytes']} MB of memory to read.")
        except Exception:
            logger.exception("reading %s", request["files"])
            answer = encode([], [], "Something went wrong on this page's side, not on yours. It is in the log.")
        self.wfile.write(answer)


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Ends with the process that started it."""

    parent = os.getppid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.parent:
            os._exit(0)


# In the page's process


class Reader:
    """Reads files through the server, which it starts, and starts again should it have died.

    Args:
        seconds, megabytes: limits of one request's time and memory.
    """

    def __init__(self, seconds: int = 60, megabytes: int = 2048):
        self.seconds, self.megabytes = seconds, megabytes
        self._folder = tempfile.TemporaryDirectory(prefix="reading-")
        self._address = os.path.join(self._folder.name, "socket")
        self._server: subprocess.Popen | None = None
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        """Start the server. It takes some seconds until it answers; `read` waits for it."""
        Path(self._address).unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, str(SERVER), self._address]
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)

    def close(self) -> None:
        """End the server and whatever it still reads."""
        self._server.terminate()
        self._server.wait()
        self._folder.cleanup()

    def read(self, files: list[str]) -> Reading:
        """What became of files that belong together, whatever they are."""
        start, pieces = time.monotonic(), []
        with tempfile.TemporaryDirectory(dir=self._folder.name) as scratch:
            request = {"files": files, "scratch": scratch, "seconds": self.seconds, "megabytes": self.megabytes}
            try:
                for is_last in (False, True):
                    with self._connect() as connection:
                        start = time.monotonic()
                        try:
                            pieces = self._ask(connection, request)
                            break
                        except ConnectionResetError:  # by a server that was about to die
                            if is_last:
                                raise
            except TimeoutError:
                pass
            except OSError:
                logger.exception("no reader")
                return Reading(
                    problem="The part of this page that reads files does not answer. Try again in a minute."
                )
        if (reading := decode(b"".join(pieces))) is not None:
            return reading
        if time.monotonic() - start >= self.seconds:
            return Reading(problem=f"Reading took longer than {self.seconds} seconds, and was stopped.")
        return Reading(problem=f"Reading needed more than {self.megabytes} MB of memory, and was stopped.")

    def _ask(self, connection: socket.socket, request: dict) -> list[bytes]:
        """The server's answer, as far as there is one."""
        connection.settimeout(self.seconds + PATIENCE)
        connection.sendall(json.dumps(request).encode() + b"\n")
        return list(iter(lambda: connection.recv(2**20), b""))

    def _connect(self, patience: float = 60) -> socket.socket:
        """A connection to the server, once it listens.

        Raises:
            OSError: it does not within `patience` seconds.
        """
        end = time.monotonic() + patience
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._address)
                return connection
            except OSError:
                connection.close()
                if time.monotonic() > end:
                    raise
                with self._lock:
                    if self._server.poll() is not None:
                        self.start()
                time.sleep(0.1)


if __name__ == "__main__":
    with Server(sys.argv[1], Handler) as server:
        server.serve_forever()
