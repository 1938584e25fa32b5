"""ZIP archives from anywhere: how much they unpack to is seen before they are unpacked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable

from inf_llm.errors import TextError
from inf_llm.units import size

MOST_BYTES = 256 << 20
"""Of text with its markup that is unpacked from one archive."""


class Archive:
    """The files in an archive.

    Raises:
        TextError: it is damaged, or encrypted.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except zipfile.BadZipFile as error:
            raise TextError(f"is cut off or damaged ({error})") from None
        self.names = {entry.filename: entry for entry in self._zip.infolist()}
        if any(entry.flag_bits & 1 for entry in self.names.values()):
            raise TextError("is encrypted: save it without a password")

    def check_size(self, names: Iterable[str]) -> None:
        """See that these files may be unpacked. No more than the sizes they state is ever read.

        Raises:
            TextError: they are larger together than `MOST_BYTES`.
        """
        total = sum(self.names[name].file_size for name in names)
        if total > MOST_BYTES:
            raise TextError(
                f"unpacks to {size(total)} of text and markup, and at most {size(MOST_BYTES)} are "
                "read: take out what is not needed"
            )

    def read(self, name: str) -> bytes:
        """A file, unpacked.

        Raises:
            TextError: it is not there, or damaged, or too large.
        """
        if name not in self.names:
            raise TextError(f"is damaged: {name} is not in it")
        self.check_size([name])
        return self._zip.read(name)
