"""The reader's server, with files that do what no file of ours does: by their names they hang, fill the memory,
crash."""

import os
import signal
import sys

import reading


read_files = reading.read_files


def misbehave(files):
    name = os.path.basename(files[0])
    if name == "hang":
        while True:
            pass
    if name == "memory":
        return [bytearray(2**20) for _ in range(10**6)]
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "fault":
        raise RuntimeError(name)
    return read_files(files)


reading.read_files = misbehave
if __name__ == "__main__":
    with reading.Server(sys.argv[1], reading.Handler) as server:
        server.serve_forever()
