#!/usr/bin/env python3
"""Every kind of object has a magic of its own: one shared by two kinds would let a wrong cast pass."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAGIC = re.compile(r"^\s*#\s*define\s+(\w*_MAGIC)\s+(0x[0-9a-fA-F]+)")


def main():
    seen, violations = {}, []
    for path in sorted(p for d in ("lib", "cmd", "include") for p in (ROOT / d).rglob("*.[ch]")):
        for n, line in enumerate(path.read_text().splitlines(), 1):
            match = MAGIC.match(line)
            if not match:
                continue
            where = f"{path.relative_to(ROOT)}:{n}"
            value = int(match[2], 16)
            if value in seen:
                violations.append(f"{where}: {match[1]} has the value of {seen[value]}")
            seen.setdefault(value, f"{match[1]} in {where}")
    print("\n".join(violations) or f"{len(seen)} magics, all different")
    return 1 if violations else 0


sys.exit(main())
