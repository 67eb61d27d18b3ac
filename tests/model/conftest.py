"""For all tests of the model."""

from tests.threads import one_thread

__all__ = ["one_thread"]
