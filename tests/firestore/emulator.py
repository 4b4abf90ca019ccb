"""Google's Firestore emulator as a process: java itself, not gcloud, which would leave java running when it is stopped."""

import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from gateway.free_ports import claim_free_port
from tests.patience import patience
from tests.probes import is_ready

_JAR = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
_MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
_JVM = ("-Duser.language=en", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m")
_USUAL_ROOTS = ("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/opt/google-cloud-sdk")


@cache
def find_jar() -> Path | None:
    for root in _USUAL_ROOTS:
        if (Path(root) / _JAR).exists():
            return Path(root) / _JAR
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return None
    asked = subprocess.run(
        [gcloud, "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True, check=False
    )
    jar = Path(asked.stdout.strip()) / _JAR
    return jar if jar.exists() else None


def why_missing() -> str:
    """Why there can be no emulator here; empty where there can."""
    if shutil.which("java") is None:
        return "there is no java (apt install default-jre-headless)"
    if find_jar() is None:
        return "there is no Firestore emulator (gcloud components install cloud-firestore-emulator)"
    return ""


class Emulator:
    """One emulator on one port of this machine, which it keeps when it is killed and restarted."""

    def __init__(self) -> None:
        self.port = claim_free_port()
        self.host = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `stop`)

    def start(self) -> None:
        jar = find_jar()
        assert jar is not None, why_missing()
        command = ["java", *_JVM, "-cp", str(jar), _MAIN, "--host", "127.0.0.1", "--port", str(self.port)]
        give_up_at = time.monotonic() + patience(60)
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        while not is_ready(f"http://{self.host}/"):
            if time.monotonic() > give_up_at:
                self._log.seek(0)
                raise RuntimeError(f"the Firestore emulator did not start: {self._log.read()[-2000:]!r}")
            if self._process.poll() is not None:
                # A client that tries to reach a killed emulator may have got its very port for its own end.
                time.sleep(0.2)
                self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
            time.sleep(0.02)

    def kill(self) -> None:
        """As a crash: kill -9."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(patience(20))

    def stop(self) -> None:
        self.kill()
        self._log.close()
