"""A store that does not answer is told of while it is asked again, so that nobody looks at a silent terminal."""

import logging
import time

QUIET = 5.0  # seconds of asking again about which nothing is said
EVERY = 60.0  # seconds between two lines about a place

_log = logging.getLogger(__name__)  # of which Python shows warnings on the terminal, if nothing else was asked for
_told: dict[str, float] = {}  # place -> when last


def waited(place: str, since: float, patience: float, why: str) -> None:
    """Since a time of the monotonic clock `place` is asked again, for up to `patience` seconds, because of `why`."""
    now = time.monotonic()
    if now - since < QUIET or now - _told.get(place, -EVERY) < EVERY:
        return
    _told[place] = now
    why = "".join(letter if letter.isprintable() else "?" for letter in why)
    _log.warning("%s does not answer (%s): it is asked again for up to %g s", place, why, patience)


def told(line: str) -> None:
    """Say why it takes long, where nobody else was asked to."""
    _log.warning("%s", line)
