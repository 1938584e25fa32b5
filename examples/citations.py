"""Show the passages from which an answer was read, on the screen and as an HTML report.

    python examples/citations.py [REPORT.html]

Runs offline, with the model that comes with the package. `inf_llm.trace` records the blocks that
every layer recalls for every token of the answer; `cite` turns these blocks into whole sentences.
"""

from __future__ import annotations

import sys
from pathlib import Path

import inf_llm
from inf_llm.demo import haystack_text
from inf_llm.generation import Session, save_report
from inf_llm.generation.citations import cite, decoded
from inf_llm.hf.trace import spans_of

CONFIG = Path(__file__).parent.parent / "config" / "demo-inf-llm.yaml"
NEEDLE = "The pass key is 48213. Remember it. 48213 is the pass key"
QUESTION = "\nWhat is the pass key? The pass key is"


def main(report: str = "recall.html") -> None:
    """Read a text, ask under a trace, and show the recalled passages."""
    sentences = haystack_text().split(". ")[:80]
    sentences.insert(30, NEEDLE)
    model, tokenizer = inf_llm.load(CONFIG)
    session = Session(model, tokenizer)
    session.read(". ".join(sentences) + QUESTION)
    prompt = 0, len(session.ids)

    # Only the answer is of interest, so no recall of the prompt is recorded.
    with inf_llm.trace(model, prompts=False) as trace:
        answer = session.ask(max_new_tokens=8, stop=["."])
    print(f"answer: {answer.text.strip()}")

    recalls = trace.generated()
    text, places = decoded(tokenizer, session.ids, [prompt, *spans_of(recalls).values()])
    for passage in cite(recalls, text, places, places[prompt])[:3]:
        print(f"{passage.score:.2f}  {' '.join(text[passage.start : passage.end].split())}")

    save_report(trace, session.ids, tokenizer, report, prompt_tokens=prompt[1], title=QUESTION)
    print(f"the whole map, by layer and word: {report}")


if __name__ == "__main__":
    main(*sys.argv[1:])
