"""`python -m benchmarks [NAME …]`: compare speeds, and write `results.jsonl` and `RESULTS.md`."""

import argparse
import json
import sys
import warnings
from pathlib import Path

from benchmarks.runner import HERE, Options, as_table, measure, page, read_results
from benchmarks.suite import COMPARISONS


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; return the exit status."""
    names = {each.name: each for each in COMPARISONS}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(f"{each.name:>20}  {each.about}" for each in COMPARISONS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*names, []], help="comparisons; default: all")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer images than usual (default 1)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of results.jsonl and RESULTS.md")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    options = Options(given.device, given.rounds, given.scale)
    given.output.mkdir(parents=True, exist_ok=True)
    file = given.output / "results.jsonl"
    for comparison in [names[name] for name in given.names] or COMPARISONS:
        if options.device not in comparison.devices:
            continue
        result = measure(comparison, options)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(result) + "\n")
        print("\n".join(["", f"{comparison.name}: {comparison.about}", "", *as_table(result)]), flush=True)
    (given.output / "RESULTS.md").write_text(page(read_results(file)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
