"""README's first program, with the real model it names, prints what README says."""

from __future__ import annotations

import contextlib
import io

from tests.docs.pages import ROOT, blocks
from tests.real.models import MODELS


def test_the_first_program_prints_what_the_page_says() -> None:
    page = ROOT / "README.md"
    program = next(block.code for block in blocks(page) if block.language == "python")
    hub, said = '"HuggingFaceTB/SmolLM2-135M-Instruct"', "to eat a sandwich in Dolores Park."
    assert hub in program
    assert said in " ".join(page.read_text(encoding="utf-8").split("It prints `")[1].split())[:200]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program.replace(hub, repr(str(MODELS["smollm2"].folder))), {})
    assert said in printed.getvalue()
