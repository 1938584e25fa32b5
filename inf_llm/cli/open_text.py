"""What questions are about: a text that is read now, or a memory in a folder, or both."""

from __future__ import annotations

import hashlib
import json
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


@dataclass
class OpenText:
    """A session that has read a text, to be asked.

    Attributes:
        session: what has read it.
        start: the beginning of every prompt.
        layout: of the prompts.
        config: of the run.
        landmarks: of the documents that it has read.
    """

    session: Session
    start: PromptStart
    layout: Layout
    config: RunConfig
    landmarks: tuple[Landmarks, ...]

    @property
    def digest(self) -> str:
        """Of the text, the model's name and the settings: what an answer depends on."""
        from inf_llm.hf.identity import settings_identity

        model = self.config.model.path, self.config.model.dtype
        said = [model, settings_identity(self.config.attention), self.session.ids, self.start.rest]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]

    def prompt(self, question: str, room: int) -> list[int]:
        """The tokens that ask a question, after those that are read.

        Raises:
            TextError: with `room` tokens of an answer the prompt is longer than max_len allows.
        """
        from inf_llm.generation import finish_prompt

        new = finish_prompt(self.session.tokenizer, self.layout, self.start, question)
        check_length(len(self.session.ids) + len(new), self.config.max_len - room)
        return new

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


def open_text(
    chosen: RunConfig, memory: Path | None, document: DocumentText, force: bool
) -> OpenText:
    """Read a document, or open a memory, or open one and read on.

    Raises:
        SavedMemoryError: the memory is damaged, or belongs to another model.
        TextError: the text does not suit the layout, or is longer than max_len.
        RoomError: the model or the text does not fit, and `force` is not set.
    """
    from inf_llm.generation import Landmarks, PromptStart, Session, choose_layout, start_prompt
    from inf_llm.plan.refuse import require_room

    loaded, tokenizer = load_aloud(chosen, force)
    layout = choose_layout(tokenizer, chosen.conv_type, chosen.control_tokens)
    session, start = Session(loaded, tokenizer, chosen.chunk_size), None
    landmarks: tuple[Landmarks, ...] = ()
    if memory is not None:
        session = Session.load(memory, loaded, tokenizer, chosen.chunk_size)
        note = read_manifest(memory).note
        start = PromptStart(list(session.ids), str(note.get("rest", "")))
        landmarks = Landmarks.noted(note.get("landmarks", []))
        say(f"{memory}: {len(session.ids):,} tokens")
    if document.text or start is None:
        start = start_prompt(tokenizer, layout, document.text, start)
        landmarks = (*landmarks, Landmarks.of(document))
        check_length(len(start.ids), chosen.max_len)
        new = len(start.ids) - len(session.ids)
        if not force:
            require_room(chosen, new, loaded.dtype)
        with TokenProgress(lambda: memory_line(session.stats())) as progress:
            session.read(start.ids[len(session.ids) :], progress)
            say(f"read {new:,} tokens in {pace(new, progress.seconds)}")
    return OpenText(session, start, layout, chosen, landmarks)
