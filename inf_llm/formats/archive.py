"""ZIP archives from untrusted sources: their unpacked size is checked before they are unpacked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable

from inf_llm.errors import TextError
from inf_llm.units import size

MAX_BYTES = 256 << 20
"""Most bytes of text and markup that are unpacked from one archive."""


class Archive:
    """The files in an archive.

    Raises:
        TextError: the archive is damaged or encrypted.
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
        """Check that these files may be unpacked. At most the stated size of a file is ever read.

        Raises:
            TextError: together the files are larger than `MAX_BYTES`.
        """
        total = sum(self.names[name].file_size for name in names)
        if total > MAX_BYTES:
            raise TextError(
                f"unpacks to {size(total)} of text and markup, and at most {size(MAX_BYTES)} are "
                "read: take out what is not needed"
            )

    def read(self, name: str) -> bytes:
        """Return the unpacked content of a file.

        Raises:
            TextError: the archive lacks the file, or the file is too large.
            zipfile.BadZipFile, zlib.error: the file is damaged.
        """
        if name not in self.names:
            raise TextError(f"is damaged: {name} is not in it")
        self.check_size([name])
        return self._zip.read(name)
