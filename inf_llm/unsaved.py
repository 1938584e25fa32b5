"""Objects that live in a process: they can be forked, and refuse to be written anywhere."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from inf_llm.errors import UnsupportedInputError

_Object = TypeVar("_Object")


class Unsaved:
    """Base of what holds a memory, a model or room for pages.

    To Python's copiers all of it looks like ordinary data: pickle, and with it `torch.save`,
    multiprocessing and joblib, would write the model and all the room there is, used or not, before
    it fails of a lock. So a copy is a fork, and nothing else is done.
    """

    def fork(self) -> Any:
        """A copy that goes on by itself.

        Raises:
            UnsupportedInputError: this kind of object has none.
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
    """Another object with the same attributes, as `copy.copy` makes where it is allowed."""
    twin = object.__new__(type(thing))
    twin.__dict__.update(thing.__dict__)
    return twin
