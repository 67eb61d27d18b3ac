"""What is computed when it is first asked for, and kept."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class loaded(Generic[Value]):
    """`functools.cached_property` without a lock. That of Python 3.11 has one for all instances of a class: a process
    that is forked while a thread loads would wait for it for ever. Two threads may compute at the same time; both get
    what the first of them kept.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self.compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "loaded[Value]": ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> "Value | loaded[Value]":
        if instance is None:
            return self
        kept: Value = instance.__dict__.setdefault(self.name, self.compute(instance))
        return kept
