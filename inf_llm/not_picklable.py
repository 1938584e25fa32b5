"""A base class for objects that exist in one process: they can be forked, but not pickled."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from inf_llm.errors import UnsupportedInputError

_Object = TypeVar("_Object")


class NotPicklable:
    """Base of classes that hold a memory, a model or storage for pages.

    Without this class, pickle (and with it `torch.save`, multiprocessing and joblib) writes the
    model and the whole storage, used or not, before it fails at a lock. Here a copy is a fork, and
    pickling raises an error at once.
    """

    def fork(self) -> Any:
        """Return an independent copy.

        Raises:
            UnsupportedInputError: the class does not support forks.
        """
        raise UnsupportedInputError(f"a {type(self).__name__} cannot be copied by itself")

    def __copy__(self) -> Any:
        return self.fork()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.fork()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise UnsupportedInputError(
            f"a {type(self).__name__} cannot be pickled, saved or sent to another process: it "
            "lives with its model in this one. Keep the text, and read it again there; within "
            "this process, fork() makes copies"
        )


def bare_copy(thing: _Object) -> _Object:
    """Return another object with the same attributes, as `copy.copy` does for other classes."""
    twin = object.__new__(type(thing))
    twin.__dict__.update(thing.__dict__)
    return twin
