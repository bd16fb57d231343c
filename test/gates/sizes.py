#!/usr/bin/env python3
"""A function that one can see whole, a file of one idea: functions under 80 lines, files under 700."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_MAX = 79
FILE_MAX = 699


def functions(lines):
    """(first line, length) of each body: from a brace in the first column to the next closing one there."""
    begin = None
    for n, line in enumerate(lines, 1):
        if line.startswith("{") and begin is None:
            begin = n
        elif line.startswith("}") and begin is not None:
            yield begin, n - begin + 1
            begin = None


def main():
    violations = []
    files = sorted(p for d in ("lib", "cmd", "include") for p in (ROOT / d).rglob("*.[ch]"))
    for path in files:
        lines = path.read_text().splitlines()
        where = path.relative_to(ROOT)
        if len(lines) > FILE_MAX:
            violations.append(f"{where}:{len(lines)}: {len(lines)} lines in one file, {FILE_MAX} are the most")
        for begin, length in functions(lines):
            if length > FUNCTION_MAX:
                name = lines[begin - 2].strip()
                violations.append(f"{where}:{begin}: {length} lines, {FUNCTION_MAX} are the most: {name}")
    print("\n".join(violations) or f"{len(files)} files: none is too long, nor any function")
    return 1 if violations else 0


sys.exit(main())
