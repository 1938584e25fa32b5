"""The subject of questions: a text that is read, a memory in a folder, or both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inf_llm.cli.failures import say
from inf_llm.cli.options import configuration, load_with_progress, memory_line
from inf_llm.cli.progress import TokenProgress
from inf_llm.config import DTYPES, config_from
from inf_llm.errors import SavedMemoryError, TextError
from inf_llm.saved.manifest import Manifest, read_manifest
from inf_llm.units import pace

if TYPE_CHECKING:
    from inf_llm.config import RunConfig
    from inf_llm.formats import DocumentText
    from inf_llm.generation import Answer, Landmarks, Layout, PromptStart, Session


@dataclass(frozen=True)
class Subject:
    """The text that questions are about, before a model has read it.

    Attributes:
        config: the configuration of the run.
        start: the beginning of every prompt, which contains the text.
        memory: folder of a memory that has read the first part of the text; None without one.
        landmarks: the landmarks of the documents in the text.
    """

    config: RunConfig
    start: PromptStart
    memory: Path | None
    landmarks: tuple[Landmarks, ...]

    @property
    def digest(self) -> str:
        """Digest of all that an answer depends on: text, model's name and format, and settings."""
        from inf_llm.hf.identity import settings_identity

        model = self.config.model.path, self.config.model.dtype
        parts = [model, settings_identity(self.config.attention), self.start.ids, self.start.rest]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def prompt(self, tokenizer: Any, layout: Layout, question: str, room: int) -> list[int]:
        """Return the tokens of a question, which follow those of the start.

        Raises:
            TextError: the prompt and an answer of `room` tokens are longer than max_len.
        """
        from inf_llm.generation import finish_prompt

        new = finish_prompt(tokenizer, layout, self.start, question)
        check_length(len(self.start.ids) + len(new), self.config.max_len - room)
        return new


@dataclass
class OpenText:
    """A session that reads the subject of questions and answers them.

    Attributes:
        subject: the text that questions are about.
        session: the session that reads it.
        layout: layout of the prompts.
    """

    subject: Subject
    session: Session
    layout: Layout

    @property
    def left(self) -> int:
        """Number of tokens of the subject that are not read yet."""
        return len(self.subject.start.ids) - len(self.session.ids)

    def read(self, force: bool) -> Iterator[int]:
        """Read the tokens that are left; yield the number of tokens read after each chunk.

        Raises:
            RoomError: the text does not fit, and `force` is not set.
        """
        from inf_llm.plan.refuse import require_room

        if not self.left:
            return
        if not force:
            require_room(self.subject.config, self.left, self.session.model.dtype)
        yield from self.session.reading(self.subject.start.ids[len(self.session.ids) :])

    def prompt(self, question: str, room: int) -> list[int]:
        """Return the tokens of a question; see `Subject.prompt`."""
        return self.subject.prompt(self.session.tokenizer, self.layout, question, room)

    def ask(self, session: Session, new: list[int], max_new_tokens: int, streamer: Any) -> Answer:
        """Return the answer of a session to the tokens that `prompt` returned."""
        from inf_llm.generation import answer_ends

        ends = answer_ends(session.model, self.layout)
        return session.ask(new, max_new_tokens=max_new_tokens, streamer=streamer, eos_token_id=ends)


def check_length(tokens: int, limit: int) -> None:
    """Check the length of a prompt that cannot be cut because its memory is kept.

    Raises:
        TextError: the prompt has more than `limit` tokens.
    """
    if tokens > limit:
        raise TextError(
            f"the prompt has {tokens:,} tokens, but max_len leaves room for {limit:,}: raise "
            "max_len (what is read once for many questions is not cut)"
        )


def memory_configuration(
    folder: Path, config: str | None, model: str | None, overrides: list[str] | None
) -> RunConfig:
    """Return the configuration that a memory was read with, unless another one is named.

    Raises:
        SavedMemoryError: the folder holds no memory, its manifest has no configuration, or the
            settings are not those of the memory.
        ConfigError: the configuration cannot be used.
    """
    manifest = read_manifest(folder)
    saved = manifest.note.get("config")
    if config is not None or (model is not None and not isinstance(saved, dict)):
        chosen = configuration(config, model, overrides)
    elif isinstance(saved, dict):
        path = {} if model is None else {"path": model}
        saved = {**saved, "model": {**saved.get("model", {}), **path}}
        chosen = config_from(saved, str(folder), overrides or ())
    else:
        raise SavedMemoryError(
            f"{folder} does not say what it was read with (inf-llm read writes that): give "
            "--config, or --model"
        )
    return for_memory(chosen, folder, manifest)


def for_memory(chosen: RunConfig, folder: Path, manifest: Manifest) -> RunConfig:
    """Return a configuration with the dtype of a memory, since "auto" may choose another one.

    Raises:
        SavedMemoryError: the settings are not those of the memory.
    """
    from inf_llm.hf.identity import settings_identity
    from inf_llm.hf.saving import check_identity

    check_identity(folder, manifest, {"attention": settings_identity(chosen.attention)})
    dtype = str(manifest.identity.get("dtype"))
    if chosen.model.dtype != "auto" or dtype not in DTYPES:
        return chosen
    return replace(chosen, model=replace(chosen.model, dtype=dtype))


def subject_of(
    chosen: RunConfig, tokenizer: Any, memory: Path | None, document: DocumentText
) -> Subject:
    """Return the subject of a document, of a memory, or of a memory with a document after it.

    Raises:
        SavedMemoryError: the folder holds no memory, or the memory is damaged.
        TextError: the layout cannot take the text, or the text is longer than max_len.
    """
    from inf_llm.generation import Landmarks, PromptStart, choose_layout, start_prompt
    from inf_llm.hf.saving import saved_tokens

    start: PromptStart | None = None
    landmarks: tuple[Landmarks, ...] = ()
    if memory is not None:
        manifest = read_manifest(memory)
        ids = saved_tokens(memory, manifest).tolist()
        start = PromptStart(ids, str(manifest.note.get("rest", "")))
        landmarks = Landmarks.noted(manifest.note.get("landmarks", []))
    if document.text or start is None:
        layout = choose_layout(tokenizer, chosen.conv_type, chosen.control_tokens)
        start = start_prompt(tokenizer, layout, document.text, start)
        landmarks = (*landmarks, Landmarks.of(document))
        check_length(len(start.ids), chosen.max_len)
    return Subject(chosen, start, memory, landmarks)


def begin(subject: Subject, model: Any, tokenizer: Any) -> OpenText:
    """Return a session that holds the memory of a subject, if there is one, and no other tokens.

    Raises:
        SavedMemoryError: the memory is damaged, or belongs to another model.
    """
    from inf_llm.generation import Session, choose_layout

    config = subject.config
    layout = choose_layout(tokenizer, config.conv_type, config.control_tokens)
    session = Session(model, tokenizer, config.chunk_size)
    if subject.memory is not None:
        session = Session.load(subject.memory, model, tokenizer, config.chunk_size)
    return OpenText(subject, session, layout)


def open_text(chosen: RunConfig, memory: Path, document: DocumentText, force: bool) -> OpenText:
    """Open a memory, and read a document after it if there is one, with a progress bar.

    Raises:
        SavedMemoryError: the memory is damaged, or belongs to another model.
        TextError: the layout cannot take the text, or the text is longer than max_len.
        RoomError: the model or the text does not fit, and `force` is not set.
    """
    model, tokenizer = load_with_progress(chosen, force)
    opened = begin(subject_of(chosen, tokenizer, memory, document), model, tokenizer)
    session, new = opened.session, opened.left
    say(f"{memory}: {len(session.ids):,} tokens")
    if new:
        with TokenProgress(lambda: memory_line(session.stats())) as progress:
            for done in opened.read(force):
                progress(done, len(session.ids))
            say(f"read {new:,} tokens in {pace(new, progress.seconds)}")
    return opened
