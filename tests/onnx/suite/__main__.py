"""Runs the suite, or a part of it, and prints counts; status 1 where a case is wrong, or passed before."""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import time
from pathlib import Path

from tests.onnx.suite import expected
from tests.onnx.suite.cases import load_cases
from tests.onnx.suite.judge import Outcome
from tests.onnx.suite.variants import VARIANTS
from tests.onnx.suite.workers import run_cases


def main() -> int:
    args = _arguments()
    names = [name for name in load_cases() if re.search(args.filter, name)]
    options = {}
    if args.device == "CPU":
        options = {"opt": args.opt, **({"sanitize": "address+undefined"} if args.sanitize else {})}
    done = 0
    start = time.monotonic()

    def seen(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if outcome.status == "wrong":
            print(f"{outcome.name}: wrong ({outcome.code}): {outcome.reason}", flush=True)
        elif args.verbose:
            known = f"for constant {', '.join(outcome.specialised)}" if outcome.specialised else ""
            words = outcome.name + ":", outcome.status, outcome.code, outcome.reason, known, outcome.note
            print(" ".join(word for word in words if word), flush=True)
        if done % 200 == 0:
            print(f"{done} of {len(names)}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)

    outcomes = run_cases(names, args.device, options, args.jobs, args.variant, seen)
    print(summary(outcomes, time.monotonic() - start))
    args.json.write_text(json.dumps([o.to_json() for o in outcomes], indent=1) + "\n", encoding="utf-8")
    if args.variant:
        print(notes(outcomes))
        excused = expected.exempt()
        return 1 if any(o.status == "wrong" and o.name not in excused for o in outcomes) else 0
    if args.update:
        expected.update(args.device, outcomes)
    problems = expected.failures(args.device, outcomes)
    print("\n".join(line for line in problems if "passed before" in line))
    return 1 if problems else 0


def summary(outcomes: list[Outcome], seconds: float) -> str:
    """Counts by status, and refusals by their reasons."""
    counts = collections.Counter(outcome.status for outcome in outcomes)
    excused = expected.exempt()
    wrong = [o for o in outcomes if o.status == "wrong"]
    lines = [
        f"{counts['passed']} passed ({sum(bool(o.specialised) for o in outcomes)} with inputs made constants, "
        f"{sum('float' in text for text in (' '.join(o.specialised) for o in outcomes))} of these floats), "
        f"{counts['refused']} refused, {counts['unchanged']} unchanged, "
        f"{len([o for o in wrong if o.name not in excused])} wrong, "
        f"{len([o for o in wrong if o.name in excused])} exempt; {len(outcomes)} in {seconds:.0f} s"
    ]
    reasons = collections.Counter(_shape_of(o.reason) for o in outcomes if o.status == "refused")
    lines += [f"  {count:4} {reason}" for reason, count in reasons.most_common(40)]
    return "\n".join(lines)


def notes(outcomes: list[Outcome]) -> str:
    """How many outcomes of a variant have the same note, as far as its first part."""
    counts = collections.Counter(f"{o.status}: {re.split('[;,(]', o.note)[0].strip()}" for o in outcomes if o.note)
    return "\n".join(f"  {count:4} {note}" for note, count in counts.most_common(20))


def _shape_of(reason: str) -> str:
    """A reason without the names and numbers of one node, so that equal causes count together."""
    return re.sub(r"%\S+|'[^']*'|\d+", "_", reason)[:150]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.onnx.suite", description=__doc__)
    parser.add_argument("--device", choices=("REFERENCE", "CPU"), required=True)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="", help="of each case, one that is harder")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--filter", default="", help="only cases whose name matches")
    parser.add_argument("--opt", default="-O1", help="how the C compiler optimises")
    parser.add_argument("--sanitize", action="store_true", help="under address and undefined-behaviour sanitizers")
    parser.add_argument("--update", action="store_true", help="add what passes now to the expected outcomes")
    parser.add_argument("--json", type=Path, default=Path("out/onnx_suite.json"), help="where all outcomes go")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    return args


if __name__ == "__main__":
    sys.exit(main())
