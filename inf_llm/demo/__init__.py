"""Needles in haystacks, one attention type beside the other: what `inf-llm demo` runs and shows."""

from __future__ import annotations

from inf_llm.demo.trial import Trial, haystack_text, plan, run_trial

__all__ = ["Trial", "haystack_text", "plan", "run_trial"]
