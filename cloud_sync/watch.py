"""Whoever looks on while a blob comes: counts it, shows it, or stops it."""


class Watch:
    """Looks on while a blob comes, and may raise to stop it; this one does neither."""

    def attempt(self, number: int, missing: int) -> None:
        """Attempt `number`, from 1, is about to ask for `missing` bytes."""

    def arrived(self, count: int) -> None:
        """So many bytes came and were kept."""

    def ended(self) -> None:
        """No more is asked for; called whatever happened."""
