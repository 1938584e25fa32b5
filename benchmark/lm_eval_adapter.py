"""Run lm-evaluation-harness with this package's models, on any of its tasks.

    python benchmark/lm_eval_adapter.py run --model inf-llm \
        --model_args config=config/mistral-inf-llm.yaml,model.topk=32 --tasks niah_single_1

All arguments are those of lm_eval. The model argument `config` is a configuration of this package;
other model arguments override its keys. Prompts, limits and metrics are lm_eval's. Its LongBench
and InfiniteBench differ from those of the papers, which `pred.py` and `eval.py` follow.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from inf_llm.config import load_config
from inf_llm.errors import InfLLMError
from inf_llm.optional import need

# Arguments that lm_eval adds automatically, although the configuration sets their values.
_DECIDED = ("device", "max_batch_size", "trust_remote_code")


def register() -> type:
    """Register the model `inf-llm` with lm_eval, and return its class.

    Raises:
        MissingExtraError: lm_eval is not installed.
    """
    base = need("lm_eval.models.huggingface", "the lm_eval adapter", extra="lm-eval").HFLM
    registry = need("lm_eval.api.registry", "the lm_eval adapter", extra="lm-eval")

    class InfLLMModel(base):  # type: ignore[misc, valid-type]
        """A patched model with lm_eval's model interface.

        Args:
            config: path of a configuration.
            batch_size: number of prompts per batch; the memory handles their padding.
            max_length: longest prompt; None for the configuration's max_len.
            settings: dotted keys of the configuration, with values that override it.
        """

        def __init__(
            self,
            config: str,
            batch_size: int | str = 1,
            max_length: int | None = None,
            **settings: Any,
        ) -> None:
            import inf_llm

            overrides = [f"{k}={v}" for k, v in settings.items() if k not in _DECIDED]
            read = load_config(config, overrides)
            model, tokenizer = inf_llm.load(read)
            super().__init__(
                pretrained=model,
                backend="causal",
                tokenizer=tokenizer,
                batch_size=batch_size,
                max_length=max_length or read.max_len,
            )
            self._chunk_size = read.chunk_size

        def _model_generate(self, context: Any, *args: Any, **kwargs: Any) -> Any:
            """Generate, and read a long prompt in chunks, as the rest of this package does."""
            if context.shape[1] > self._chunk_size:
                kwargs.setdefault("prefill_chunk_size", self._chunk_size)
            return super()._model_generate(context, *args, **kwargs)

    registry.register_model("inf-llm")(InfLLMModel)
    return InfLLMModel


def main() -> int:
    """Run lm_eval's command line with `inf-llm` as one of its models."""
    try:
        register()
        need("lm_eval.__main__", "the lm_eval adapter", extra="lm-eval").cli_evaluate()
    except InfLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
