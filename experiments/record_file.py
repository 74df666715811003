"""A file of lines that several crashes may hit and only one program writes."""

from __future__ import annotations

import os
from pathlib import Path

from .recording import HEADER, decode

try:
    import fcntl
except ImportError:  # Windows: nothing keeps a second program out
    fcntl = None


class RecordFile:
    """Appends whole lines to a recording, new or begun before.

    Each call hands its lines to the operating system at once: a program that is killed loses
    nothing of what was appended. What a crash left of a last line is cut off when the file is
    opened again; a failed append leaves the file as it was.
    """

    def __init__(self, path: Path):
        """Open a recording.

        Args:
          path: of the file; it and its folder are made if need be.

        Raises:
          ValueError: if the file is something else than a recording; it is left as it is.
          OSError: if it cannot be opened, or another program has it open.
        """
        if path.is_dir():
            raise IsADirectoryError(
                f"mekax: expected the path of a file to record to, got the folder {path}. "
                f"Pass for example {path / 'run.jsonl'}."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        try:
            self._lock(path)
            self._size = self._whole(path)
            self._file.truncate(self._size)
            if not self._size:
                self.append(f"{HEADER}\n".encode())
        except BaseException:
            self._file.close()
            raise

    def append(self, lines: bytes) -> None:
        """Append lines, all of them or none."""
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:]) or 0
        except BaseException:
            self._file.truncate(self._size)
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Wait for the disk and close the file."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def _lock(self, path: Path) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BlockingIOError(
                f"mekax: expected a recording that nothing else writes to, but {path} is in use. "
                "Close the other Recorder, or pass another path."
            ) from error

    def _whole(self, path: Path) -> int:
        """Length of the file up to the end of its last whole line."""
        self._file.seek(0)
        first = self._file.readline(len(HEADER) + 1)
        header = f"{HEADER}\n".encode()
        if header.startswith(first) and first != header:
            return 0  # empty, or killed while the header was written
        if first != header:
            raise ValueError(
                f"mekax: expected {path} to be a recording or not to exist, but it does not begin "
                f"with {HEADER}. Pass another path; the file has been left as it is."
            )
        end = self._file.seek(0, os.SEEK_END)
        begin, line = self._last_line(end)
        if begin < len(header):
            return len(header)
        if line.endswith(b"\n"):
            try:
                decode(line)
            except ValueError:
                return begin  # such as the zeros that a crash of the machine may leave
            return end
        return begin

    def _last_line(self, end: int) -> tuple[int, bytes]:
        """Where the last line begins, whole or not, and the line."""
        tail = b""
        while True:
            begin = max(0, end - len(tail) - 4096)
            self._file.seek(begin)
            tail = self._file.read(end - begin)
            before = tail.rfind(b"\n", 0, len(tail) - 1)
            if before >= 0 or begin == 0:
                return begin + before + 1, tail[before + 1 :]
