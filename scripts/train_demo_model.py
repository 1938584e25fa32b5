"""Train the small Llama that ships with the package, from a folder or file of text.

    python scripts/train_demo_model.py --text books/ --held-out other_books.txt --out first/
    python scripts/train_demo_model.py --text books/ --held-out other_books.txt --out model/ \
        --grow first/ --layers 5 --tokens 12_000_000

The second command continues from the model of the first one, with one more layer. Both together
take under two hours on two CPU cores. Either may be stopped at any time; the same command then
continues from the last checkpoint in `--work`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

from demo_model.card import Figures, write_card  # noqa: E402
from demo_model.export import export, write_haystack  # noqa: E402
from demo_model.measure import baselines, chat_passkey, loss_by_position, retrieval  # noqa: E402
from demo_model.network import Shape, build, grow  # noqa: E402
from demo_model.samples import Sampler  # noqa: E402
from demo_model.text import (  # noqa: E402
    TextError,
    common_words,
    encode_all,
    read_text,
    split_held_out,
    train_tokenizer,
)
from demo_model.training import Options, Trainer, can_compile, plan  # noqa: E402

CONTEXT = 512


def fail(message: str) -> NoReturn:
    """Print one line to standard error, and exit with status 2."""
    print(f"train_demo_model: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="train_demo_model", description=__doc__.split("\n\n")[0])
    made.add_argument("--text", type=Path, required=True, help="folder or file: .txt, .xz or .gz")
    made.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    made.add_argument("--work", type=Path, help="folder for checkpoints (default: OUT/work)")
    made.add_argument("--held-out", type=Path, help="text to measure on; not trained on")
    made.add_argument("--tokens", type=_positive, default=26_000_000, help="tokens to train on")
    made.add_argument("--grow", type=Path, help="finished model to go on from, with a layer more")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--vocab", type=_positive, default=1024, help="size of the tokenizer")
    made.add_argument("--width", type=_positive, default=256, help="hidden size, a multiple of 64")
    made.add_argument("--layers", type=_positive, default=4)
    made.add_argument("--threads", type=_positive, help="CPU threads (default: torch's choice)")
    made.add_argument("--count", type=_positive, default=200, help="needles a task to measure on")
    made.add_argument("--compile", choices=("auto", "on", "off"), default="auto")
    return made


def _positive(text: str) -> int:
    value = int(text.replace("_", ""))
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small: at least 1 is needed")
    return value


def shape_of(args: argparse.Namespace) -> Shape:
    """Return the sizes of the network; exit with an error if they are not valid."""
    if args.width % 64:
        fail(f"--width {args.width} is not a multiple of 64, the size of a head")
    if args.layers < 2:
        fail("--layers 1 is too few: looking things up takes two")
    if args.vocab < 300:
        fail(f"--vocab {args.vocab} is too small: 256 bytes and the special tokens need 300")
    heads = args.width // 64
    kv_heads = heads // 2 if heads % 2 == 0 else heads
    if args.grow is not None:
        check_grown(args)
    return Shape(
        vocab=args.vocab,
        width=args.width,
        layers=args.layers,
        heads=heads,
        kv_heads=kv_heads,
        mlp=args.width * 5 // 2,
        context=CONTEXT,
    )


def prepare(text: str, vocab: int, work: Path) -> tuple[Tokenizer, np.ndarray]:
    """Return the tokenizer and the text's tokens, which are kept in `work` for the next start."""
    mark = hashlib.sha256(f"{vocab}/{text}".encode()).hexdigest()[:12]
    tokenizer_file, ids_file = work / f"tokenizer-{mark}.json", work / f"ids-{mark}.npy"
    if not (tokenizer_file.exists() and ids_file.exists()):
        tokenizer = train_tokenizer(text[:20_000_000], vocab)
        tokenizer.save(str(tokenizer_file))
        np.save(ids_file, encode_all(tokenizer, text))
    return Tokenizer.from_file(str(tokenizer_file)), np.load(ids_file)


def make_trainer(
    args: argparse.Namespace, text: str, tokenizer: Tokenizer, ids: np.ndarray, work: Path
) -> Trainer:
    """Build the trainer from model, batches and plan; continue from a checkpoint in `work`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiled = args.compile == "on" or (args.compile == "auto" and can_compile())
    options = Options(seed=args.seed, compile=compiled)
    model: Any
    if args.grow is None:
        model = build(shape_of(args), args.seed)
    else:
        first = LlamaForCausalLM.from_pretrained(args.grow, dtype=torch.float32)
        model = grow(first, args.seed)
        # A different seed, so that the rows differ from those of the first run.
        options = replace(options, seed=args.seed + 1, rate=options.rate / 2, cooldown=0.5)
    sampler = Sampler(tokenizer, ids, common_words(text), options.seed)
    phases = plan(args.tokens, CONTEXT, grown=args.grow is not None)
    trainer = Trainer(model.to(device), sampler, phases, options, work)
    if trainer.resume():
        print(f"going on from step {trainer.step}", file=sys.stderr)
    return trainer


def check_grown(args: argparse.Namespace) -> None:
    """Check that the folder of `--grow` has a finished model with one layer less, and its log."""
    facts = {}
    for name in ("config.json", "training_log.json"):
        try:
            facts[name] = json.loads((args.grow / name).read_text())
        except (OSError, ValueError) as error:
            fail(f"--grow {args.grow} is not the folder of a finished model: {name}: {error}")
    config = facts["config.json"]
    width, layers = config.get("hidden_size"), config.get("num_hidden_layers")
    if (width, layers) != (args.width, args.layers - 1):
        fail(
            f"--grow {args.grow} has {layers} layers of width {width}: with --layers "
            f"{args.layers} and --width {args.width}, {args.layers - 1} layers of that width are "
            "needed"
        )


def log_of(folder: Path) -> dict[str, Any]:
    """Return the training log of a finished model."""
    log: dict[str, Any] = json.loads((folder / "training_log.json").read_text())
    return log


def train(args: argparse.Namespace) -> None:
    """Run everything, from the text to the exported model and its card."""
    shape = shape_of(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    held_out = None if args.held_out is None else read_text(args.held_out)
    text = read_text(args.text)
    work = args.work or args.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    tokenizer, ids = prepare(text, args.vocab, work)
    if len(ids) < 100 * CONTEXT:
        fail(f"{args.text} has {len(ids)} tokens; at least {100 * CONTEXT} are needed")
    trainer = make_trainer(args, text, tokenizer, ids, work)
    trainer.run()
    log = {
        "shape": asdict(shape),
        "options": asdict(trainer.options),
        "phases": [asdict(phase) for phase in trainer.phases],
        "text_tokens": len(ids),
        "steps": trainer.log,
        "grown_from": None if args.grow is None else log_of(args.grow),
    }
    export(trainer.model.cpu(), tokenizer, args.out, log)
    if held_out is not None:
        finish(args, shape, trainer, ids, held_out)


def finish(
    args: argparse.Namespace, shape: Shape, trainer: Trainer, ids: np.ndarray, held_out: str
) -> None:
    """Measure the exported model on held-out text; write its card and the haystack."""
    model = LlamaForCausalLM.from_pretrained(args.out, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(args.out)
    haystack, rest = split_held_out(held_out)
    write_haystack(haystack, args.out)
    held_ids = encode_all(tokenizer.backend_tokenizer, rest)
    found = retrieval(model, tokenizer, rest, count=args.count)
    found["passkey, chat"] = chat_passkey(model, tokenizer, rest, count=args.count)
    positions = loss_by_position(model, held_ids)
    figures = Figures(positions, baselines(ids, held_ids, args.vocab), found, 1024, args.count)
    write_card(args.out, shape, run_facts(args, model, trainer.log, len(ids)), figures)
    print(json.dumps({"found": found, "baselines": figures.baselines}), file=sys.stderr)


def run_facts(
    args: argparse.Namespace,
    model: LlamaForCausalLM,
    lines: list[dict[str, Any]],
    text_tokens: int,
) -> dict[str, Any]:
    """Return the card's facts about the run, and about the run that it continues."""
    runs, commands = [lines[-1]], [command("MODEL", args.layers, args.tokens, args.seed)]
    if args.grow is not None:
        first = log_of(args.grow)
        runs.insert(0, first["steps"][-1])
        layers, about = first["shape"]["layers"], round(runs[0]["tokens"], -6)
        commands = [command("FIRST", layers, about, args.seed), f"{commands[0]} --grow FIRST"]
    tokens, steps, seconds = (
        sum(run[key] for run in runs) for key in ("tokens", "step", "seconds")
    )
    device = "a GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU cores"
    return {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "tokens": tokens,
        "steps": steps,
        "minutes": seconds / 60,
        "device": device,
        "seed": args.seed,
        "megabytes": (args.out / "model.safetensors").stat().st_size / 1e6,
        "text_tokens": text_tokens,
        "command": "\n".join(commands),
    }


def command(out: str, layers: int, tokens: int, seed: int) -> str:
    """Return the command that starts a run, with placeholders for the names of files."""
    return (
        f"python scripts/train_demo_model.py --text BOOKS --held-out OTHER_BOOKS --out {out}"
        f" --layers {layers} --tokens {tokens} --seed {seed}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = parser().parse_args(argv)
    try:
        train(args)
    except (TextError, OSError) as error:
        fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
