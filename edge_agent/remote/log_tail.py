"""The newest lines of this process's log, kept in memory for whoever asks for them."""

import logging
from collections import deque

MAX_LINES = 2000
MAX_LINE = 1000
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogTail(logging.Handler):
    """Keeps the last lines; a long one is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT))
        self._lines: deque[str] = deque(maxlen=MAX_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's lines."""
        try:
            self._lines.extend(line[:MAX_LINE] for line in self.format(record).splitlines())
        except Exception:  # noqa: BLE001 -- what logging does with a record that it cannot format
            self.handleError(record)

    def last(self, count: int) -> str:
        """The last lines, oldest first."""
        self.acquire()
        try:
            lines = list(self._lines)[-count:]
        finally:
            self.release()
        return "".join(f"{line}\n" for line in lines)
