"""Runs random cases and prints counts by operator and verdict, and how to see each failure again."""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.importers.compiled import check_compiled, drawn
from tests.fuzz.importers.judge import FAILURES, Verdict, cause
from tests.fuzz.importers.run import make, run_cases, specimens


def main() -> int:
    """Status 1 where a case differs or raises what it should not."""
    args = _arguments()
    start = time.monotonic()
    chosen = specimens(args.cases, args.seed, args.op, args.case)
    if args.device == "CPU":
        with tempfile.TemporaryDirectory() as folder:
            verdicts = check_compiled(drawn(chosen[:: args.one_in], make), Path(folder))
    else:
        verdicts = run_cases(chosen, args.jobs)
    _print_failures(verdicts, args.show)
    _print_counts(verdicts)
    kinds = collections.Counter(v.kind for v in verdicts)
    total = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    print(f"{len(verdicts)} cases, seed {args.seed}: {total}; {time.monotonic() - start:.0f} s")
    return 1 if kinds["differ"] or kinds["exception"] else 0


def _print_failures(verdicts: list[Verdict], show: int) -> None:
    causes: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.kind in FAILURES:
            causes.setdefault((verdict.operator, verdict.kind, cause(verdict)), []).append(verdict)
    for (operator, kind, _), found in sorted(causes.items()):
        print(f"{operator}: {kind} in {len(found)} cases: {found[0].detail[:300]}")
        for verdict in found[:show]:
            print(f"  {verdict.reproducer}\n      {verdict.detail[:240]}")


def _print_counts(verdicts: list[Verdict]) -> None:
    kinds = sorted({v.kind for v in verdicts})
    counts: dict[str, collections.Counter[str]] = {}
    for verdict in verdicts:
        counts.setdefault(verdict.operator, collections.Counter())[verdict.kind] += 1
    print(f"{'':28}" + "".join(f"{kind:>11}" for kind in kinds))
    for operator, row in sorted(counts.items()):
        print(f"{operator:28}" + "".join(f"{row[kind] or '':>11}" for kind in kinds))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.importers", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--op", action="append", help="only cases of this operator (may be repeated)")
    parser.add_argument("--case", help="only this case, as Conv-11/0.17 names it")
    parser.add_argument("--device", choices=("REFERENCE", "CPU"), default="REFERENCE", help="CPU: a share of them as C")
    parser.add_argument("--one-in", type=int, default=20, help="of how many cases one is compiled")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--show", type=int, default=2, help="failures shown of each kind")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
