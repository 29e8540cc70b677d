"""What a run of the simulator has seen, as figures; `--json` prints them."""

from collections import Counter

import msgspec

from cloud_sync.messages import Phase

MAX_ERRORS = 20


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgeml simulate --json` prints; times in seconds, memory and traffic in bytes.

    `phases` counts devices and models by the phase that they stand in, `errors` the sentences of
    what went wrong by how often, the most frequent ones.
    """

    devices: int
    enrolled: int
    connected: int
    seconds: float
    faults: dict[str, int]
    classes: dict[str, int]
    phases: dict[str, int]
    running: dict[str, int]
    desired_accepted: int
    desired_refused: int
    updates: int
    downloads: int
    downloaded_bytes: int
    http_requests: int
    http_connections: int
    messages_sent: int
    acknowledged: int
    waiting_records: int
    dropped_records: int
    errors: dict[str, int]
    rss_bytes: int


class Tally:
    """Counts, by name; and the errors, by their sentence."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.phases: Counter[Phase] = Counter()
        self.running: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Count something."""
        self.counts[name] += number

    def failed(self, error: Exception) -> None:
        """Count an error by its sentence, without the names that differ from device to device."""
        sentence = str(error)[:200]
        if sentence in self._errors or len(self._errors) < 10 * MAX_ERRORS:
            self._errors[sentence] += 1

    def moved(self, before: Phase, after: Phase) -> None:
        """Count a device's model as in another phase."""
        self.phases[before] -= 1
        self.phases[after] += 1

    def errors(self) -> dict[str, int]:
        """The most frequent ones."""
        return dict(self._errors.most_common(MAX_ERRORS))
