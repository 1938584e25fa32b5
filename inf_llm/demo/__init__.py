"""Needles in haystacks under several attention types: the trials and tables of `inf-llm demo`."""

from __future__ import annotations

from inf_llm.demo.trial import Trial, haystack_text, plan, run_trial

__all__ = ["Trial", "haystack_text", "plan", "run_trial"]
