"""A deadline for an answer: httpx bounds the wait for the next byte, and not for the last one."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import httpx

from cloud_sync.metering import Meter

_CUT_AGAIN_S = 0.2


@contextmanager
def in_time(meter: Meter, seconds: float, request: httpx.Request) -> Iterator[None]:
    """Cut the metered connections when the block takes longer: no byte now and then keeps it.

    Raises:
        httpx.ReadTimeout: it did.
    """
    over, late = Event(), Event()

    def cut_when_late() -> None:
        wait = seconds
        # Again and again: what is late may only now be connecting.
        while not over.wait(wait):
            late.set()
            meter.cut()
            wait = _CUT_AGAIN_S

    Thread(target=cut_when_late, name="in-time", daemon=True).start()
    try:
        yield
    except httpx.TransportError as error:
        if late.is_set():
            raise httpx.ReadTimeout(
                f"no answer within {seconds:g} s, only a byte now and then", request=request
            ) from error
        raise
    finally:
        over.set()
