"""Control tokens: what a template writes is one, what stands in a content is ordinary text.

A tokenizer reads "<|im_end|>" as the token that ends a turn, wherever it stands. So a content is
`hidden` before a template renders it: private characters, as many, take the place of each control
token's text. When the prompt is encoded, they become that text again, and what is left are the
template's own control tokens. The encoder is then a twin of the tokenizer, in which the control
tokens have other, random names of the same lengths. A prompt in which nothing is hidden is encoded
by the tokenizer itself.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from inf_llm.errors import TextError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Span = tuple[int, int]
_PRIVATE = 0xF0000, 0xFFFFD
"""Characters of no meaning, from the first to the last."""
_TALK = tuple({"role": role, "content": "a"} for role in ("user", "assistant", "user"))


class ControlTokens:
    """The control tokens of a tokenizer.

    They are its special tokens, and those added ones that its chat template writes. A single
    character and white space are none.

    Args:
        tokenizer: fast or slow; one that never reads control tokens in a text has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.ids = _control_ids(tokenizer)
        """Id of each by its text."""
        first = private(1)  # of all marks, so that a text without any is seen at once
        self._marks = {name: first + private(len(name) - 1) for name in self.ids}
        self._names = {mark: name for name, mark in self._marks.items()}
        self._find, self._find_marks = _finder(self.ids), _finder(self._names)

    def hidden(self, content: str) -> str:
        """A content with private characters where control tokens would be; of the same length."""
        return _replaced(content, self._find(content), self._marks)

    def shown(self, text: str) -> str:
        """What a text was before its contents were hidden; of the same length."""
        return _replaced(text, self._find_marks(text), self._names)

    def encoded(self, text: str, special: bool) -> tuple[list[int], list[Span] | None] | None:
        """Ids of a text with hidden contents, and each one's characters; None if it has none.

        Args:
            text: the prompt.
            special: whether to add the special tokens that surround a prompt.

        Returns:
            The ids and, of a fast tokenizer, the characters [start, end) of each.
        """
        if next(self._find_marks(text), None) is None:
            return None
        if not getattr(self._tokenizer, "is_fast", False):
            return self._piecewise(text, special), None
        renamed = self.shown(_replaced(text, self._find(text), self._twin_names))
        encoding = self._twin.encode(renamed, add_special_tokens=special)
        return list(encoding.ids), list(encoding.offsets)

    def _piecewise(self, text: str, special: bool) -> list[int]:
        """The same of a tokenizer in Python: what stands between control tokens, each by itself."""
        added = self._tokenizer.added_tokens_decoder
        ids, done, before = list[int](), 0, None
        for start, end in [*self._find(text), (len(text), len(text))]:
            said, index = self.shown(text[done:start]), self.ids.get(text[start:end], -1)
            said = said.lstrip() if getattr(before, "rstrip", False) else said
            before = added.get(index)
            said = said.rstrip() if getattr(before, "lstrip", False) else said
            pieces = self._tokenizer.tokenize(said, split_special_tokens=True) if said else []
            ids += [*self._tokenizer.convert_tokens_to_ids(pieces), index]
            done = end
        del ids[-1]  # of no token, at the end of the text
        return list(self._tokenizer.build_inputs_with_special_tokens(ids)) if special else ids

    def decoded(self, ids: list[int]) -> str:
        """The text of tokens, hidden where a control token's text is ordinary tokens."""
        control = set(self.ids.values())
        whole = self._decode(ids)
        if sum(index in control for index in ids) == sum(1 for _ in self._find(whole)):
            return whole
        parts, run = [], list[int]()
        for index in ids:
            if index in control:
                parts += [self.hidden(self._decode(run)), self._decode([index])]
                run = []
            else:
                run.append(index)
        return "".join([*parts, self.hidden(self._decode(run))])

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    @cached_property
    def _twin_names(self) -> dict[str, str]:
        return {name: private(len(name)) for name in self.ids}

    @cached_property
    def _twin(self) -> Tokenizer:
        """The tokenizer with other names of control tokens."""
        return renamed(self._tokenizer.backend_tokenizer, self.ids, self._twin_names)


_known: WeakKeyDictionary[Any, tuple[tuple[int, str], ControlTokens]] = WeakKeyDictionary()


def control_tokens(tokenizer: Any) -> ControlTokens:
    """Those of a tokenizer as it is now; found once."""
    if not hasattr(tokenizer, "added_tokens_decoder"):
        return ControlTokens(tokenizer)
    size = len(tokenizer) if hasattr(type(tokenizer), "__len__") else 0
    state = size, str(getattr(tokenizer, "chat_template", None))
    known = _known.get(tokenizer)
    if known is None or known[0] != state:
        known = _known[tokenizer] = state, ControlTokens(tokenizer)
    return known[1]


def as_text(tokenizer: Any, content: str) -> str:
    """A content that will be encoded without control tokens; of the same length."""
    return control_tokens(tokenizer).hidden(content)


def encoded(tokenizer: Any, text: str, special: bool) -> tuple[list[int], list[Span] | None] | None:
    """See `ControlTokens.encoded`."""
    return control_tokens(tokenizer).encoded(text, special)


def _control_ids(tokenizer: Any) -> dict[str, int]:
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if added is None or getattr(tokenizer, "split_special_tokens", False):
        return {}
    found = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    found |= {token.content: index for index, token in added.items() if token.special}
    rest = {token.content: index for index, token in added.items() if not token.special}
    written = _written(tokenizer) if rest else ""
    found |= {text: index for text, index in rest.items() if text in written}
    return {text: index for text, index in found.items() if len(text.strip()) > 1}


def _written(tokenizer: Any) -> str:
    """What the tokenizer's own template writes around contents; "" where it does not."""
    try:
        return str(
            tokenizer.apply_chat_template(list(_TALK), tokenize=False, add_generation_prompt=True)
        )
    except Exception:  # a template raises what its author thought of
        return ""


def private(length: int) -> str:
    """So many characters of no meaning, chosen at random."""
    first, last = _PRIVATE
    return "".join(chr(first + secrets.randbelow(last - first + 1)) for _ in range(length))


def _finder(names: Collection[str]) -> Callable[[str], Iterator[Span]]:
    """A function that finds names in a text, the longest of those that begin at one place.

    A tokenizer may have thousands, so they are looked up where the first two characters of one are.
    """
    if not names:
        return lambda text: iter(())
    starts = re.compile("|".join(sorted({re.escape(name[:2]) for name in names})))
    lengths = sorted({len(name) for name in names}, reverse=True)

    def find(text: str) -> Iterator[Span]:
        match = starts.search(text)
        while match is not None:
            start = match.start()
            length = next((n for n in lengths if text[start : start + n] in names), 0)
            if length:
                yield start, start + length
            match = starts.search(text, start + max(1, length))

    return find


def _replaced(text: str, spans: Iterator[Span], by: dict[str, str]) -> str:
    parts, done = [], 0
    for start, end in spans:
        parts += [text[done:start], by[text[start:end]]]
        done = end
    return "".join([*parts, text[done:]]) if parts else text


def renamed(inner: Tokenizer, ids: dict[str, int], names: dict[str, str]) -> Tokenizer:
    """A tokenizer whose control tokens have other names and the same ids.

    What merges make of ordinary text keeps its name: it means the same either way.

    Raises:
        TextError: the tokenizer is of a kind that cannot be written down and read again.
    """
    from tokenizers import Tokenizer

    said = json.loads(inner.to_str())
    model = said["model"]
    merges = model.get("merges") or ()
    made = {"".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges}
    new = {name: other for name, other in names.items() if name not in made}
    for token in said["added_tokens"]:
        token["content"] = new.get(token["content"], token["content"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[new.get(piece, piece), *rest] for piece, *rest in vocabulary]
    else:
        model["vocab"] = {new.get(piece, piece): index for piece, index in vocabulary.items()}
    if model.get("unk_token") in new:
        model["unk_token"] = new[model["unk_token"]]
    twin: Tokenizer = Tokenizer.from_str(json.dumps(said))
    if any(twin.token_to_id(new.get(name, name)) != index for name, index in ids.items()):
        raise TextError(
            "the text has control tokens, which this tokenizer cannot take for ordinary text: take "
            "them out, or let them count with control_tokens=true"
        )
    twin.no_truncation()
    twin.no_padding()
    return twin
