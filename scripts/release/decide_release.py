"""Say whether the recommended variant may be released, and exit with the answer: for CI.

Reads   report.json
Runs    on the host, with the standard library alone
Usage   python3 -m scripts.release.decide_release results/digits/report.json     (or: make gate)
Prints  digits: released: onnx_fp32 passes every gate
Exits   0 the recommended variant passes every gate; 2 only the fallback does; 3 nothing does; 4 the
        evidence is insufficient; 1 there is no report. Under make every other code than 0 becomes 2.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    """Print one line, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    try:
        path: Path = parser.parse_args().report
    except SystemExit as stop:  # argparse's 2 for a wrong call is not our 2
        return 1 if stop.code else 0
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        decision = report["decision"]
        code = int(decision["exit"])
        line = f"{report['case']}: {decision['verdict']}: {decision['words']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"Error: {path} is no report to decide by ({type(error).__name__}: {error}). "
              "Run `make all` first.", file=sys.stderr)  # fmt: skip
        return 1
    print(line + (f" (exit {code})" if code else ""))
    return code


if __name__ == "__main__":
    sys.exit(main())
