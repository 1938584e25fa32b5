"""lm-evaluation-harness with this package's models: every task there, long or short.

    python benchmark/lm_eval_adapter.py run --model inf-llm \
        --model_args config=config/mistral-inf-llm.yaml,model.topk=32 --tasks niah_single_1

Whatever follows is lm_eval's own command line. `config` is a configuration of this package; other
model arguments overrule its keys. Prompts, limits and metrics are lm_eval's: its LongBench and
InfiniteBench are not those of the papers, which `pred.py` and `eval.py` follow.
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

# Arguments that lm_eval adds by itself and that the configuration already decides.
_DECIDED = ("device", "max_batch_size", "trust_remote_code")


def register() -> type:
    """Registers `inf-llm` with lm_eval, and returns the class.

    Raises:
        MissingExtraError: lm_eval is not installed.
    """
    base = need("lm_eval.models.huggingface", "the lm_eval adapter", extra="lm-eval").HFLM
    registry = need("lm_eval.api.registry", "the lm_eval adapter", extra="lm-eval")

    class InfLLMModel(base):  # type: ignore[misc, valid-type]
        """A patched model as lm_eval knows models.

        Args:
            config: path of a configuration.
            batch_size: prompts at a time; padding is taken care of by the memory.
            max_length: longest prompt; the configuration's max_len where it is None.
            settings: keys of the configuration to overrule, dotted.
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
            """A long prompt is read in chunks, as everywhere in this package."""
            if context.shape[1] > self._chunk_size:
                kwargs.setdefault("prefill_chunk_size", self._chunk_size)
            return super()._model_generate(context, *args, **kwargs)

    registry.register_model("inf-llm")(InfLLMModel)
    return InfLLMModel


def main() -> int:
    """lm_eval's command line, with `inf-llm` among its models."""
    try:
        register()
        need("lm_eval.__main__", "the lm_eval adapter", extra="lm-eval").cli_evaluate()
    except InfLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
