"""Reading of text files, and the small tokenizer trained on them."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SUFFIXES = (".txt", ".xz", ".gz")
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = (BOS, EOS, PAD, SYSTEM, USER, ASSISTANT, END)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PIECE = 100_000


class TextError(ValueError):
    """A text cannot be used; the message gives the reason and what is accepted."""


def text_files(path: Path) -> list[Path]:
    """Return the text files of `path`: the file itself, or those below the folder in name order.

    Raises:
        TextError: there is nothing at `path`, or no file with a known suffix.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
    else:
        raise TextError(f"no such file or folder: {path}")
    if not files or any(p.suffix not in SUFFIXES for p in files):
        raise TextError(f"{path}: expected text files ending in {', '.join(SUFFIXES)}")
    return files


def read_text(path: Path) -> str:
    """Read all text of a file or folder; files are joined by a blank line.

    Raises:
        TextError: there is nothing to read, an archive is damaged, or a file is not UTF-8.
    """
    parts = []
    for file in text_files(path):
        try:
            raw = file.read_bytes()
            if file.suffix == ".xz":
                raw = lzma.decompress(raw)
            elif file.suffix == ".gz":
                raw = gzip.decompress(raw)
            parts.append(raw.decode("utf-8"))
        except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise TextError(f"cannot read {file}: {error}") from error
    return "\n\n".join(parts)


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """Cut `text` into runs of `size` characters."""
    return (text[i : i + size] for i in range(0, len(text), size))


def train_tokenizer(text: str, vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer that gives every digit a token of its own.

    All 256 bytes are in the alphabet, so any text encodes and decodes without loss. With separate
    digits the model can copy a number of any length digit by digit.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces(text), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def as_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return the tokenizer for transformers, with its special tokens and chat template."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT, END],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def encode_all(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Return the token ids of a long text as uint16, without special tokens."""
    encoded = tokenizer.encode_batch(list(pieces(text)), add_special_tokens=False)
    return np.concatenate([np.asarray(e.ids, dtype=np.uint16) for e in encoded])


def common_words(text: str, limit: int = 20_000) -> list[str]:
    """Return lower-case words of 4 to 9 letters, sorted: material for keys and names."""
    words = {
        w
        for w in text[:20_000_000].split()
        if w.isascii() and w.isalpha() and w.islower() and 4 <= len(w) <= 9
    }
    return sorted(words)[:: max(1, len(words) // limit)]


def split_held_out(text: str, size: int = 1_000_000) -> tuple[str, str]:
    """Return a slice of whole lines from the middle, about `size` characters, and the rest.

    In a text shorter than three times `size`, the slice is a third of the text.
    """
    size = min(size, len(text) // 3)
    start = text.find("\n", (len(text) - size) // 2) + 1
    stop = text.find("\n", start + size) + 1 or len(text)
    return text[start:stop], text[:start] + text[stop:]
