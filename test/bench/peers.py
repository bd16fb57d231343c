"""nginx and HAProxy as an expert would set them up, from the templates beside this, for live.py and run.py."""
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
os.environ.setdefault("VB_BUILD_DIR", str(HERE.parents[1] / "build"))
from harness import TIMEOUT, eventually, free_port, is_refused  # noqa: E402

CLIENTS = 4096  # at once
IDLE = 64  # connections to backends that nginx keeps, in all


def need(*programs):
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}")


def render(template, folder, **values):
    """The file's path, with what stands between @ filled in."""
    text = (HERE / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    file = folder / template
    file.write_text(text)
    return file


@contextmanager
def program(port, *command):
    """Until the end of the block; its process, with the port where it listens."""
    process = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: process.poll() is not None or not is_refused(port), f"{command[0]} listens")
        if process.poll() is not None:
            raise SystemExit(f"{' '.join(map(str, command))} ended with status {process.returncode}")
        process.port = port
        yield process
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def nginx(folder, backends, method="", workers=1, zone=False, clients=CLIENTS, idle=IDLE):
    port = free_port()
    file = render("nginx.conf", folder, FOLDER=folder, PORT=port, WORKERS=workers, METHOD=method,
                  ZONE="zone backends 64k;" if zone else "", CONNECTIONS=2 * clients + 64, IDLE=idle,
                  SERVERS=" ".join(f"server {backend.address};" for backend in backends))
    return program(port, "nginx", "-p", folder, "-c", file, "-e", folder / "error.log")


def haproxy(folder, backends, method="roundrobin", workers=1, clients=CLIENTS):
    port = free_port()
    servers = "\n    ".join(f"server {backend.name} {backend.address}" for backend in backends)
    file = render("haproxy.cfg", folder, PORT=port, WORKERS=workers, METHOD=method, SERVERS=servers, CLIENTS=clients)
    return program(port, "haproxy", "-q", "-f", file)
