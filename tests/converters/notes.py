"""A conversion's progress, kept."""

from converters.progress import Silent


class Notes(Silent):
    """Keeps what is told, and the steps."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.steps: list[str] = []

    def note(self, what: str) -> None:
        self.told.append(what)

    def step(self, what: str, total: int = 0) -> None:
        self.steps.append(what)
