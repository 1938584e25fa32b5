"""Run the checks that need a GPU, on the first CUDA device, in a few minutes: one JSON file.

    bash scripts/gpu_check.sh [--json FILE] [--seconds N]

Every step compares results of the device with those of the CPU or of the reference, and measures
times. A step that fails is recorded and the next one begins; a step for which no time is left is
recorded as left out. `--device cpu` runs the same steps on a CPU with small sizes, to try the
script itself.

Exit codes: 0 all steps passed, 1 some did not, 2 there is no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import torch  # noqa: E402

from benchmark.timing import report  # noqa: E402
from gpu_check.check import Check, DifferenceError, Figures  # noqa: E402
from gpu_check.choices import choices, saved, together  # noqa: E402
from gpu_check.kernels import kernels, pinned_copies  # noqa: E402
from gpu_check.needles import decode_at_32k, types  # noqa: E402
from gpu_check.speed import speed  # noqa: E402

STEPS = (kernels, pinned_copies, types, choices, saved, together, decode_at_32k, speed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), metavar="FILE")
    parser.add_argument("--seconds", type=float, default=400, help="after which no step begins")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"error: torch {torch.__version__} finds no CUDA device here", file=sys.stderr)
        return 2
    device = torch.device("cuda:0" if args.device == "cuda" else "cpu")
    return _run(Check(device, small=args.device == "cpu"), args.json, args.seconds)


def _run(check: Check, file: Path, seconds: float) -> int:
    started, steps = time.perf_counter(), {}
    facts = {"environment": report.environment(check.device.type), "steps": steps}
    for step in STEPS:
        before = time.perf_counter()
        if before - started < seconds:
            steps[step.__name__] = _outcome(step, check)
        else:
            steps[step.__name__] = {"ok": False, "error": f"left out: {seconds:.0f} s were over"}
        took = time.perf_counter() - before
        steps[step.__name__]["seconds"] = round(took, 2)
        facts["ok"] = all(found["ok"] for found in steps.values())
        file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        verdict = "ok" if steps[step.__name__]["ok"] else steps[step.__name__]["error"]
        print(f"{step.__name__}: {verdict} ({took:.1f} s)", file=sys.stderr, flush=True)
    print(file)
    return 0 if facts["ok"] else 1


def _outcome(step: Callable[[Check], Figures], check: Check) -> Figures:
    """Return the figures of a step, or the error that it raised."""
    try:
        with torch.no_grad():
            return {"ok": True, "figures": step(check)}
    except DifferenceError as error:
        return {"ok": False, "error": str(error), "figures": error.figures}
    except Exception as error:  # every error of a GPU library belongs in the file
        line = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"
        return {"ok": False, "error": line.splitlines()[0], "traceback": traceback.format_exc()}


if __name__ == "__main__":
    sys.exit(main())
