"""Executables that take each other's place, for the tests of upgrades."""
import subprocess
from pathlib import Path

from harness import BUILD, TIMEOUT, run

VERSION = run("vibebalancer", "--version").stdout.split()[1]


class Program:
    """The file `vibebalancer` in a folder of the test: a copy at first, then what is put in its place."""

    def __init__(self, folder):
        self.path = Path(folder) / "vibebalancer"
        self.put((BUILD / "vibebalancer").read_bytes())

    def put(self, content, mode=0o755):
        """At once, as package managers do it: a file that is executed cannot be written."""
        new = self.path.with_suffix(".new")
        new.write_bytes(content)
        new.chmod(mode)
        new.replace(self.path)

    def put_version(self, n):
        """The same program but for its version, which it returns."""
        version = f"{VERSION[:-1]}{n}"
        self.put((BUILD / "vibebalancer").read_bytes().replace(VERSION.encode(), version.encode()))
        return version

    def put_script(self, text, shell="sh"):
        self.put(f"#!/usr/bin/env {shell}\n{text}\n".encode())

    def put_python(self, text):
        self.put_script(text, shell="python3")


def vbctl_upgrade(lb):
    """Exit status, what it says, what it says is wrong."""
    process = subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "upgrade"], text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, complained = process.communicate(timeout=2 * TIMEOUT)
    return process.returncode, said, complained
