"""What SECURITY.md says of a release, where nothing else is: install by digest, serve, answer one request, end.

`python3 installed.py DIST` with the system's Python and its standard library alone; DIST is what `make release` wrote.
"""

import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

PREDICTION = {"predictions": [41.5, None, "x"]}


class Backend(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(PREDICTION if asked == {"instances": [[1], [2], [3]]} else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def main(dist: Path, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    bin_ = folder / "venv/bin"
    install = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--find-links", dist)
    subprocess.run(
        [bin_ / "pip", "install", *install, "-r", dist / "chips-gateway.requirements.txt"], check=True
    )
    backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    registry = f"sqlite:///{folder}/registry.db"
    address = f"http://127.0.0.1:{backend.server_port}"
    flags = ("--no-probe", "--force", "--version", "1", "--access", "public", "--registry", registry)
    subprocess.run([bin_ / "chips", "register", "wine", address, *flags], check=True, cwd=folder)
    gateway = subprocess.Popen(
        [bin_ / "python", "-m", "gateway", "--server.port=0", f"--registry={registry}", "--log.format=json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        assert gateway.stdout is not None
        line = next((line for line in gateway.stdout if "listens on" in line), "")
        found = re.search(r"http://[\w.]+:(\d+)", line)
        if found is None:
            sys.exit("error: the gateway has not started")
        threading.Thread(target=gateway.stdout.read, daemon=True).start()
        request = urllib.request.Request(
            f"http://127.0.0.1:{found[1]}/wine",
            data=b'{"instances": [[1], [2], [3]]}',
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    finally:
        gateway.terminate()
        code = gateway.wait(60)
    if answer != PREDICTION or code != 0:
        sys.exit(f"error: the answer was {answer}, and the gateway ended with {code}")
    print("installed by digest; a request was answered, and the gateway ended with 0")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(sys.argv[1]).resolve(), Path(name))
