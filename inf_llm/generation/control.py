"""Control tokens: those of a chat template stay, those in a message content become ordinary text.

A tokenizer encodes "<|im_end|>" as the token that ends a turn, even inside a message content. A
content is therefore masked (`hidden`) before a template renders it: the text of each control token
is replaced by the same number of private-use characters. A twin of the tokenizer encodes the
prompt. In the twin, control tokens have other, random names of the same lengths. Before encoding,
the control tokens of the template get these names, and the masked texts become the original text
again, which the twin encodes as ordinary text. The tokenizer itself encodes a prompt without masked
text.
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
"""First and last character of a Unicode private-use area."""
_TALK = tuple({"role": role, "content": "a"} for role in ("user", "assistant", "user"))


class ControlTokens:
    """The control tokens of a tokenizer.

    Control tokens are the special tokens, and the added tokens that the chat template writes.
    Single characters and white space are excluded.

    Args:
        tokenizer: a fast or slow tokenizer. A tokenizer that never encodes control tokens from a
            text, as with `split_special_tokens`, has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.ids = _control_ids(tokenizer)
        """Ids of the control tokens by their texts."""
        first = private(1)  # begins every mask, so that a text without masks is found quickly
        self._marks = {name: first + private(len(name) - 1) for name in self.ids}
        self._names = {mark: name for name, mark in self._marks.items()}
        self._find, self._find_marks = _finder(self.ids), _finder(self._names)

    def hidden(self, content: str) -> str:
        """Return a content with control tokens masked by private characters, of the same length."""
        return _replaced(content, self._find(content), self._marks)

    def shown(self, text: str) -> str:
        """Return a text with masked control tokens restored, of the same length."""
        return _replaced(text, self._find_marks(text), self._names)

    def encoded(self, text: str, special: bool) -> tuple[list[int], list[Span] | None] | None:
        """Encode a prompt with masked control tokens as ordinary text.

        Args:
            text: the prompt.
            special: whether to add the special tokens that wrap_generate a prompt.

        Returns:
            The token ids, and the characters [start, end) of each token, which are None for a slow
            tokenizer. None instead of both if the prompt has no masked control token.
        """
        if next(self._find_marks(text), None) is None:
            return None
        if not getattr(self._tokenizer, "is_fast", False):
            return self._piecewise(text, special), None
        renamed = self.shown(_replaced(text, self._find(text), self._twin_names))
        encoding = self._twin.encode(renamed, add_special_tokens=special)
        return list(encoding.ids), list(encoding.offsets)

    def _piecewise(self, text: str, special: bool) -> list[int]:
        """Encode with a slow tokenizer: the texts between control tokens, one after another."""
        added = self._tokenizer.added_tokens_decoder
        ids, done, before = list[int](), 0, None
        for start, end in [*self._find(text), (len(text), len(text))]:
            part, index = self.shown(text[done:start]), self.ids.get(text[start:end], -1)
            part = part.lstrip() if getattr(before, "rstrip", False) else part
            before = added.get(index)
            part = part.rstrip() if getattr(before, "lstrip", False) else part
            pieces = self._tokenizer.tokenize(part, split_special_tokens=True) if part else []
            ids += [*self._tokenizer.convert_tokens_to_ids(pieces), index]
            done = end
        del ids[-1]  # the placeholder -1 after the last text
        return list(self._tokenizer.build_inputs_with_special_tokens(ids)) if special else ids

    def decoded(self, ids: list[int]) -> str:
        """Return the text of token ids, with control tokens' texts from ordinary tokens masked."""
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
        """The tokenizer with other names for its control tokens."""
        return renamed(self._tokenizer.backend_tokenizer, self.ids, self._twin_names)


_known: WeakKeyDictionary[Any, tuple[tuple[int, str], ControlTokens]] = WeakKeyDictionary()


def control_tokens(tokenizer: Any) -> ControlTokens:
    """Return the control tokens of a tokenizer, cached until its size or chat template changes."""
    if not hasattr(tokenizer, "added_tokens_decoder"):
        return ControlTokens(tokenizer)
    size = len(tokenizer) if hasattr(type(tokenizer), "__len__") else 0
    state = size, str(getattr(tokenizer, "chat_template", None))
    known = _known.get(tokenizer)
    if known is None or known[0] != state:
        known = _known[tokenizer] = state, ControlTokens(tokenizer)
    return known[1]


def as_text(tokenizer: Any, content: str) -> str:
    """Mask the control tokens of a content, so that `encode` returns ordinary tokens for them."""
    return control_tokens(tokenizer).hidden(content)


def encoded(tokenizer: Any, text: str, special: bool) -> tuple[list[int], list[Span] | None] | None:
    """See `ControlTokens.encoded`."""
    return control_tokens(tokenizer).encoded(text, special)


def _control_ids(tokenizer: Any) -> dict[str, int]:
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if added is None or getattr(tokenizer, "split_special_tokens", False):
        return {}
    ids = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    ids |= {token.content: index for index, token in added.items() if token.special}
    rest = {token.content: index for index, token in added.items() if not token.special}
    written = _written(tokenizer) if rest else ""
    ids |= {text: index for text, index in rest.items() if text in written}
    return {text: index for text, index in ids.items() if len(text.strip()) > 1}


def _written(tokenizer: Any) -> str:
    """Return an example conversation rendered by the tokenizer's chat template; "" if it fails."""
    try:
        return str(
            tokenizer.apply_chat_template(list(_TALK), tokenize=False, add_generation_prompt=True)
        )
    except Exception:  # a template may raise any exception
        return ""


def private(length: int) -> str:
    """Return `length` random private-use characters."""
    first, last = _PRIVATE
    return "".join(chr(first + secrets.randbelow(last - first + 1)) for _ in range(length))


def _finder(names: Collection[str]) -> Callable[[str], Iterator[Span]]:
    """Return a function that finds names in a text, at each position the longest one.

    A tokenizer may have thousands of names. They are therefore looked up only at positions with the
    first two characters of a name.
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
    """Return a tokenizer whose control tokens have other names and the same ids.

    A token that the merges also produce from ordinary text keeps its name.

    Raises:
        TextError: this kind of tokenizer cannot be rebuilt with other names.
    """
    from tokenizers import Tokenizer

    data = json.loads(inner.to_str())
    model = data["model"]
    merges = model.get("merges") or ()
    made = {"".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges}
    new = {name: other for name, other in names.items() if name not in made}
    for token in data["added_tokens"]:
        token["content"] = new.get(token["content"], token["content"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[new.get(piece, piece), *rest] for piece, *rest in vocabulary]
    else:
        model["vocab"] = {new.get(piece, piece): index for piece, index in vocabulary.items()}
    if model.get("unk_token") in new:
        model["unk_token"] = new[model["unk_token"]]
    twin: Tokenizer = Tokenizer.from_str(json.dumps(data))
    if any(twin.token_to_id(new.get(name, name)) != index for name, index in ids.items()):
        raise TextError(
            "the text has control tokens, which this tokenizer cannot take for ordinary text: take "
            "them out, or let them count with control_tokens=true"
        )
    twin.no_truncation()
    twin.no_padding()
    return twin
