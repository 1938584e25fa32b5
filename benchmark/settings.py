"""The options of a prediction run, and which of them must stay the same within a folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmark.engine import CORE
from benchmark.prompts import PromptRules, has_template
from benchmark.tasks import benchmarks, owner
from benchmark.tasks.base import Benchmark, Instance, Source, TaskInfo, file_digest
from inf_llm.config import RunConfig
from inf_llm.conversation import TEMPLATES
from inf_llm.errors import SettingsError
from inf_llm.registry import nearest

DEFAULT_DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class RunOptions:
    """One run of `pred.py`.

    Attributes:
        config: the checked configuration.
        output: folder of the predictions.
        tasks: task names, in order.
        data: folder of the benchmarks' files.
        prompts: a prompt set for the benchmarks that have it; None for their defaults.
        chat_template: "auto", "always" or "never".
        truncation: overrides the configuration's truncation; None keeps it.
        limit: number of samples per task, from the first on; None for no limit.
        samples: number of samples of a generated task.
        seed: seed of generated samples.
        haystack: text file to hide generated needles in; None for noise sentences.
        rank: number of this process among `world_size`, from 0.
        world_size: number of processes that share the samples.
        retry_failed: whether to do failed samples again.
        verbose: whether to show the prediction and the answer of each sample.
        engine: address of the function that makes the engine.
    """

    config: RunConfig
    output: Path
    tasks: tuple[str, ...]
    data: Path = DEFAULT_DATA
    prompts: str | None = None
    chat_template: str = "auto"
    truncation: str | None = None
    limit: int | None = None
    samples: int = 50
    seed: int = 0
    haystack: Path | None = None
    rank: int = 0
    world_size: int = 1
    retry_failed: bool = False
    verbose: bool = False
    engine: str = field(default=CORE)

    def __post_init__(self) -> None:
        _check_tasks(self.tasks)
        _check_prompts(self.prompts)
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise SettingsError(
                f"rank = {self.rank} with world_size = {self.world_size}: "
                "ranks count from 0 to world_size - 1"
            )
        for name in ("limit", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} = {value} is too small: at least 1 is needed")
        if self.haystack is not None and not self.haystack.is_file():
            raise SettingsError(f"haystack = {self.haystack} is not a file: give a text file")

    @property
    def rules(self) -> PromptRules:
        """The prompt rules; the command line overrides the configuration."""
        return PromptRules(
            chat_template=self.chat_template,
            conv_type=self.config.conv_type,
            truncation=self.truncation or self.config.truncation or "none",
            max_len=self.config.max_len,
        )

    def source(self, benchmark: Benchmark, tokenizer: Any) -> Source:
        """Return the source of a benchmark's samples in this run."""
        return Source(
            folder=self.data,
            prompts=benchmark.prompt_set(self.prompts),
            tokenizer=tokenizer,
            samples=self.samples,
            seed=self.seed,
            haystack=self.haystack,
        )

    def same_within_folder(self) -> dict[str, Any]:
        """Return the sections of `run.json` that must not change, and `made_with`, which may."""
        digest = None if self.haystack is None else file_digest(self.haystack)
        return {
            "config": self.config.to_dict(),
            "rules": asdict(self.rules),
            "made_with": {name: _version(name) for name in ("inf-llm", "torch", "transformers")},
            "generation": {"samples": self.samples, "seed": self.seed, "haystack_sha256": digest},
        }


@dataclass(frozen=True)
class LoadedTask:
    """A task with its samples, ready to run."""

    name: str
    info: TaskInfo
    instances: tuple[Instance, ...]
    record: dict[str, Any]


def load_task(name: str, options: RunOptions, tokenizer: Any) -> LoadedTask:
    """Return a task with its samples and its record for `run.json`.

    Raises:
        DataError: the files of the task are absent or malformed.
        SettingsError: the rule is "always" a chat template, but the tokenizer has none.
    """
    benchmark = owner(name)
    source = options.source(benchmark, tokenizer)
    info = benchmark.info(name, source)
    loaded = benchmark.load(name, source)
    instances = _numbered(loaded)
    rules = options.rules
    wraps = rules.wraps(info.chat)
    if wraps and not has_template(tokenizer, rules.conv_type):
        if rules.chat_template == "always":
            raise SettingsError(
                "chat_template = 'always', but the tokenizer has none: give conv_type in the "
                f"configuration, one of {', '.join(TEMPLATES)}"
            )
        wraps = False  # a base model without a template gets plain prompts, as recorded below
    record = {
        "benchmark": benchmark.name,
        "prompts": source.prompts,
        "max_new_tokens": info.max_new_tokens,
        "chat_template": wraps,
        "stop": list(info.stop),
        "samples_sha256": _digest(instances),
    }
    info = TaskInfo(info.max_new_tokens, chat=wraps, stop=info.stop)
    return LoadedTask(name, info, instances, record)


def _numbered(loaded: list[Instance]) -> tuple[Instance, ...]:
    """Return samples with their indices and unique ids; equal documents share one string."""
    documents: dict[str, str] = {}
    ids: set[str] = set()
    numbered = []
    for index, instance in enumerate(loaded):
        document = documents.setdefault(instance.prompt.document, instance.prompt.document)
        prompt = replace(instance.prompt, document=document)
        unique_id = instance.id if instance.id not in ids else f"{instance.id}, row {index + 1}"
        ids.add(unique_id)
        numbered.append(replace(instance, id=unique_id, prompt=prompt, index=index))
    return tuple(numbered)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _digest(instances: tuple[Instance, ...]) -> str:
    """Return the SHA-256 over ids, prompts, answers and classes, for any source of samples."""
    digest = hashlib.sha256()
    for instance in instances:
        fields = [instance.id, instance.prompt.text, instance.answers, instance.classes]
        digest.update(json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _check_tasks(tasks: tuple[str, ...]) -> None:
    if not tasks:
        raise SettingsError("no datasets: give --datasets with names, separated by commas")
    for task in tasks:
        owner(task)
    doubles = {task for task in tasks if tasks.count(task) > 1}
    if doubles:
        raise SettingsError(f"datasets names {', '.join(sorted(doubles))} more than once")


def _check_prompts(prompts: str | None) -> None:
    known = sorted({name for benchmark in benchmarks() for name in benchmark.prompt_sets})
    if prompts is not None and prompts not in known:
        raise SettingsError(
            f"prompts = {prompts!r} is not a prompt set; {nearest(prompts, known)}"
            f"accepted: {', '.join(known)}"
        )
