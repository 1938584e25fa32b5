"""What questions are about: a text that is read now, or a memory in a folder, or both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inf_llm.cli.failures import say
from inf_llm.cli.options import configuration, load_aloud, memory_line
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
    """What questions are about, before a model has read it.

    Attributes:
        config: of the run.
        start: the beginning of every prompt.
        memory: folder of the memory that has read the first of it; None without one.
        landmarks: of the documents in it.
    """

    config: RunConfig
    start: PromptStart
    memory: Path | None
    landmarks: tuple[Landmarks, ...]

    @property
    def digest(self) -> str:
        """Of the text, the model's name and the settings: what an answer depends on."""
        from inf_llm.hf.identity import settings_identity

        model = self.config.model.path, self.config.model.dtype
        said = [model, settings_identity(self.config.attention), self.start.ids, self.start.rest]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]

    def prompt(self, tokenizer: Any, layout: Layout, question: str, room: int) -> list[int]:
        """The tokens that ask a question, after those of the start.

        Raises:
            TextError: with `room` tokens of an answer the prompt is longer than max_len allows.
        """
        from inf_llm.generation import finish_prompt

        new = finish_prompt(tokenizer, layout, self.start, question)
        check_length(len(self.start.ids) + len(new), self.config.max_len - room)
        return new


@dataclass
class OpenText:
    """A session that reads what questions are about, and is asked.

    Attributes:
        subject: what they are about.
        session: what reads it.
        layout: of the prompts.
    """

    subject: Subject
    session: Session
    layout: Layout

    @property
    def left(self) -> int:
        """Tokens of the subject that are not read."""
        return len(self.subject.start.ids) - len(self.session.ids)

    def read(self, force: bool) -> Iterator[int]:
        """Read what is left; after each feed the tokens that are read.

        Raises:
            RoomError: it does not fit, and `force` is not set.
        """
        from inf_llm.plan.refuse import require_room

        if not self.left:
            return
        if not force:
            require_room(self.subject.config, self.left, self.session.model.dtype)
        yield from self.session.reading(self.subject.start.ids[len(self.session.ids) :])

    def prompt(self, question: str, room: int) -> list[int]:
        """See `Subject.prompt`."""
        return self.subject.prompt(self.session.tokenizer, self.layout, question, room)

    def ask(self, session: Session, new: list[int], max_new_tokens: int, streamer: Any) -> Answer:
        """The answer of a session to what `prompt` gave."""
        from inf_llm.generation import answer_ends

        ends = answer_ends(session.model, self.layout)
        return session.ask(new, max_new_tokens=max_new_tokens, streamer=streamer, eos_token_id=ends)


def check_length(tokens: int, limit: int) -> None:
    """See that a prompt which cannot be cut, for it is kept as a whole, is short enough.

    Raises:
        TextError: it is not.
    """
    if tokens > limit:
        raise TextError(
            f"the prompt has {tokens:,} tokens, but max_len leaves room for {limit:,}: raise "
            "max_len (what is read once for many questions is not cut)"
        )


def memory_configuration(
    folder: Path, config: str | None, model: str | None, overrides: list[str] | None
) -> RunConfig:
    """The configuration that a memory was read with, unless another one is named.

    Raises:
        SavedMemoryError: the folder holds no memory, or says nothing of a configuration.
        ConfigError: it cannot be used.
    """
    manifest = read_manifest(folder)
    said = manifest.note.get("config")
    if config is not None or (model is not None and not isinstance(said, dict)):
        chosen = configuration(config, model, overrides)
    elif isinstance(said, dict):
        path = {} if model is None else {"path": model}
        said = {**said, "model": {**said.get("model", {}), **path}}
        chosen = config_from(said, str(folder), overrides or ())
    else:
        raise SavedMemoryError(
            f"{folder} does not say what it was read with (inf-llm read writes that): give "
            "--config, or --model"
        )
    return for_memory(chosen, folder, manifest)


def for_memory(chosen: RunConfig, folder: Path, manifest: Manifest) -> RunConfig:
    """A configuration with the dtype of a memory, for "auto" may take another one each time.

    Raises:
        SavedMemoryError: its settings are not those of the memory.
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
    """A document, or a memory, or one with the other behind it.

    Raises:
        SavedMemoryError: there is no memory, or it is damaged.
        TextError: the text does not suit the layout, or is longer than max_len.
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
    """What has read a subject's memory, if it has one, and nothing else.

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
    """Open a memory, and read a document on where there is one, with progress.

    Raises:
        SavedMemoryError: the memory is damaged, or belongs to another model.
        TextError: the text does not suit the layout, or is longer than max_len.
        RoomError: the model or the text does not fit, and `force` is not set.
    """
    model, tokenizer = load_aloud(chosen, force)
    opened = begin(subject_of(chosen, tokenizer, memory, document), model, tokenizer)
    session, new = opened.session, opened.left
    say(f"{memory}: {len(session.ids):,} tokens")
    if new:
        with TokenProgress(lambda: memory_line(session.stats())) as progress:
            for done in opened.read(force):
                progress(done, len(session.ids))
            say(f"read {new:,} tokens in {pace(new, progress.seconds)}")
    return opened
