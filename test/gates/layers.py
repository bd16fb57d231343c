#!/usr/bin/env python3
"""Who may include whom.

The rules are read from the root CMakeLists.txt: `vb_layer(NAME vb_x vb_y ...) # NUMBER` says which layers NAME may see,
and each of those must have a lower number; so layers of one number never see each other. A program sees what
`vb_program` links it with, and all below that. Folders see their own private headers and nobody else's.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Public headers that have neither a folder nor a .c file of their own name.
OWNERS = {"stats.def": "shm"}

# Foreign headers with one door.
DOORS = {"yaml.h": ["lib/conf/yaml.c"], "llhttp.h": ["lib/http/body.c"]}
UV_FROM = 3

BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|atoi|strtok|gets)\s*\(")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

violations = []


def violation(path, line, text):
    violations.append(f"{path.relative_to(ROOT)}:{line}: {text}")


def read_rules():
    """Layers: name -> (number, layers it sees). Programs: name -> layers it sees."""
    layers, programs = {}, {}
    cmake = ROOT / "CMakeLists.txt"
    for n, line in enumerate(cmake.read_text().splitlines(), 1):
        layer = re.match(r"vb_layer\((\w+)\s+(.*?)\)\s*(?:#\s*(\d+))?", line)
        program = re.match(r"vb_program\((\w+)\s+(.*?)\)", line)
        if layer:
            name, links, number = layer.groups()
            if number is None:
                violation(cmake, n, f"layer {name} has no number: write `# N` behind it")
                continue
            layers[name] = (int(number), set(re.findall(r"vb_(\w+)", links)) & set(layers))
            for below in set(re.findall(r"vb_(\w+)", links)) - {"llhttp"}:
                if below not in layers:
                    violation(cmake, n, f"layer {name} links vb_{below}, which is not declared above it")
                elif layers[below][0] >= int(number):
                    violation(cmake, n, f"layer {name} ({number}) links {below} ({layers[below][0]}), not a lower one")
        elif program:
            programs[program[1]] = set(re.findall(r"vb_(\w+)", program[2]))
    return layers, programs


def with_all_below(names, layers):
    seen = set(names)
    for name in names:
        seen |= with_all_below(layers[name][1], layers)
    return seen


def find_owner(header, layers):
    """The layer of include/vb/HEADER: by the table, by its folder, or by the one .c file of its name."""
    stem = header.split(".")[0]
    if header in OWNERS:
        return OWNERS[header]
    if stem in layers:
        return stem
    owners = [layer for layer in layers if (ROOT / "lib" / layer / f"{stem}.c").exists()]
    return owners[0] if len(owners) == 1 else None


def check_vb_include(path, line, header, me, sees, layers):
    owner = find_owner(header, layers)
    if owner is None:
        violation(path, line, f"vb/{header} belongs to no layer, or to several: name its owner in layers.py")
    elif owner != me and owner not in sees:
        seen = ", ".join(sorted(sees))
        violation(path, line, f"{me} may not include vb/{header}, which is {owner}'s; it sees {seen}")


def check_foreign(path, line, header, number):
    relative = str(path.relative_to(ROOT))
    if header in DOORS and relative not in DOORS[header]:
        violation(path, line, f"{header} only in {', '.join(DOORS[header])}")
    if header in ("uv.h",) and number < UV_FROM:
        violation(path, line, f"uv.h only from layer {UV_FROM} up")


def check_file(path, me, number, sees, layers):
    text = path.read_text()
    for n, line in enumerate(text.splitlines(), 1):
        include = INCLUDE.match(line)
        if not include:
            continue
        quote, header = include.groups()
        if header.startswith("vb/"):
            check_vb_include(path, n, header[3:], me, sees, layers)
        elif quote == "<":
            check_foreign(path, n, header, number)
        elif not (path.parent / header).exists() or "/" in header:
            violation(path, n, f'"{header}" is not in this folder: others\' private headers stay theirs')
    blank = COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    for n, line in enumerate(blank.splitlines(), 1):
        for use in BANNED.finditer(line):
            violation(path, n, f"{use[1]} is banned: it knows no size, or hides an error")


def sources(folder):
    return sorted(p for p in folder.rglob("*") if p.suffix in (".c", ".h", ".def"))


def main():
    layers, programs = read_rules()
    for folder in sorted((ROOT / "lib").iterdir()):
        if folder.is_dir() and folder.name not in layers:
            violation(folder, 1, "this folder is no layer in CMakeLists.txt")
    for name, (number, sees) in layers.items():
        for path in sources(ROOT / "lib" / name):
            check_file(path, name, number, sees, layers)
    for path in sources(ROOT / "include" / "vb"):
        owner = find_owner(path.name, layers)
        if owner is None:
            violation(path, 1, "it belongs to no layer, or to several: name its owner in layers.py")
        else:
            check_file(path, owner, *layers[owner], layers)
    for name, sees in programs.items():
        for path in sources(ROOT / "cmd" / name):
            check_file(path, name, 99, with_all_below(sees, layers), layers)
    print("\n".join(violations) or f"{len(layers)} layers, {len(programs)} programs: all includes go downwards")
    return 1 if violations else 0


sys.exit(main())
