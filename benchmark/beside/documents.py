"""The documents: made by the fidelity tasks, as tokens, the same for every subject."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.timing.arguments import check_seed
from inf_llm.config import RunConfig, load_config
from inf_llm.demo import haystack_text
from inf_llm.errors import InfLLMError
from inf_llm.fidelity.drafts import DEFINITION, Source
from inf_llm.fidelity.inputs import read_questions
from inf_llm.fidelity.tasks import Context, Workshop, check_task
from inf_llm.generation import choose_layout, read_text
from inf_llm.hf.load import described, load_tokenizer
from inf_llm.hf.source import find
from inf_llm.needles.haystack import haystack_of
from inf_llm.settings import InfLLMSettings, to_plain


@dataclass(frozen=True)
class Shelf:
    """A model and what its documents are made with.

    Attributes:
        name: of the configuration.
        config: the same, or its file.
        overrides: KEY=VALUE texts laid on it, the model's folder among them.
        settings: the configuration as it was read.
        gguf: the model as one file; None where its folder has none.
        trained: tokens that it was trained for; None where it does not say.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    settings: RunConfig
    gguf: str | None
    trained: int | None
    library: Library
    tokenizer: Any

    def context(self, task: str, tokens: int, number: int) -> Context:
        """A document of at most so many tokens, question and answer among them."""
        library = self.library
        layout = choose_layout(self.tokenizer, self.settings.conv_type, False)
        source = Source(haystack_of(library.prose), library.questions, library.asked)
        return Workshop(self.tokenizer, layout, source, tokens, library.seed).context(task, number)

    def rules(self) -> dict[str, Any]:
        """What must be the same for all rows of the model."""
        path = self.settings.model.path
        return {
            "attention": to_plain(self.settings.attention),
            "dtype": self.settings.model.dtype,
            "model": Path(path).name if Path(path).exists() else path,
            "gguf": None if self.gguf is None else Path(self.gguf).stat().st_size,
        }


@dataclass(frozen=True)
class Library:
    """What the documents of all models have in common."""

    prose: str
    asked: tuple[tuple[str, str], ...]
    overrides: tuple[str, ...]
    questions: int
    seed: int
    answer: int
    threads: int

    @classmethod
    def open(cls, args: argparse.Namespace) -> Library:
        """From a command line.

        Raises:
            InfLLMError: a task is not known, or a file cannot be read.
        """
        check_seed(args.seed)
        for task in args.tasks.split(","):
            check_task(task.strip())
        if args.qa_file is not None and args.text is None:
            raise InfLLMError("--qa-file has questions about a text: give --text too")
        return cls(
            haystack_text() if args.text is None else read_text(args.text),
            () if args.qa_file is None else read_questions(args.qa_file),
            tuple(args.overrides),
            args.questions,
            args.seed,
            args.answer,
            args.threads,
        )

    def rules(self) -> dict[str, Any]:
        """What must be the same for all rows of a folder."""
        said = "\0".join((self.prose, *(part for pair in self.asked for part in pair)))
        return {
            "definition": DEFINITION,
            "text": hashlib.sha256(said.encode()).hexdigest()[:12],
            **{name: getattr(self, name) for name in ("questions", "seed", "answer", "threads")},
            "overrides": list(self.overrides),
        }

    def shelf(self, text: str) -> Shelf:
        """The shelf of a model that was named as CONFIG or CONFIG=FOLDER.

        Raises:
            InfLLMError: there is no such model, or its configuration is not of type inf-llm.
        """
        config, _, folder = text.partition("=")
        named = (f"model.path={folder}",) if folder else ()
        overrides = (*named, *self.overrides)
        settings = load_config(config, list(overrides))
        if not isinstance(settings.attention, InfLLMSettings):
            raise InfLLMError(
                f"--model {text}: type {settings.attention.type!r} has no memory to compare: name "
                "a configuration of type 'inf-llm'"
            )
        trained = described(find("path", settings.model.path, "model"))
        ggufs = sorted(Path(folder).glob("*.gguf")) if folder else []
        return Shelf(
            Path(config).stem if config.endswith((".yaml", ".yml")) else config,
            config,
            overrides,
            settings,
            str(ggufs[0].absolute()) if ggufs else None,
            getattr(trained, "max_position_embeddings", None),
            self,
            load_tokenizer(settings),
        )
