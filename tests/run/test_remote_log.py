"""W&B beside a run: its service is killed or hangs, its server goes away. The run ends as if nothing had happened."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from harness import ROOT, SMALL

pytestmark = pytest.mark.slow
LOGGERS = ROOT / "configs" / "loggers"


class Server(BaseHTTPRequestHandler):
    """As much of W&B's server as it takes to log in and begin a run."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        me = {"id": "e", "name": "me", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}
        project = {"id": "p", "name": "lit-rl", "entity": {"id": "e", "name": "me"}}
        run = {"id": "x", "name": "abc", "displayName": "d", "config": "{}", "historyLineCount": 0, "project": project}
        features = {"cliVersionInfo": {"max_cli_version": "9"}, "latestLocalVersionInfo": None, "features": []}
        files = {"runID": "x", "uploadHeaders": [], "files": []}
        found = {"viewer": me, "upsertBucket": {"bucket": run, "inserted": True}, "serverInfo": features}
        self.answer(json.dumps({"data": found | {"createRunFiles": files}}).encode())

    do_PUT = do_POST

    def do_GET(self):
        self.answer(b"{}")
        if self.path == "/end":
            threading.Thread(target=self.server.shutdown).start()

    def answer(self, text: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def fit(tmp_path):
    """fit(overlay, STRIKE="SIGKILL") -> what a run that ends well has printed."""
    pytest.importorskip("wandb")

    def run(overlay: str, **environment: str) -> str:
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "WANDB_FINISH_TIMEOUT": "3"}
        command = [
            sys.executable, "-m", "lit_rl", "fit", *SMALL, "--config", str(LOGGERS / f"{overlay}.yaml"),
            "--trainer.callbacks+=trouble.Misfortune", "--trainer.default_root_dir", ".",
        ]  # fmt: skip
        log = tmp_path / "log"  # no pipe, which a service that hangs would hold open
        with log.open("w") as file:
            code = subprocess.call(
                command, cwd=tmp_path, env=os.environ | own | environment, stdout=file, stderr=file, timeout=120
            )
        said = log.read_text()
        assert code == 0, said[-3000:]
        status = json.loads((tmp_path / "version_0" / "status.json").read_text())
        assert status["state"] == "finished" and (tmp_path / "version_0" / "metrics.csv").exists()
        assert "Traceback" not in said
        return said

    return run


def test_a_service_that_dies(fit):
    said = fit("wandb_offline", STRIKE="SIGKILL")
    assert "struck" in said and "W&B has died (" in said and "the run goes on without it" in said


def test_a_service_that_hangs(fit):
    said = fit("wandb_offline", STRIKE="SIGSTOP")
    os.kill(int(re.search(r"struck (\d+)", said)[1]), signal.SIGKILL)
    assert "W&B does not end; what it has not uploaded stays in its folder" in said


def test_a_server_that_goes_away(fit, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    url = f"http://127.0.0.1:{server.server_port}"
    fit("wandb", WANDB_BASE_URL=url, WANDB_API_KEY="0123456789" * 4, ASK=f"{url}/end")
    serving.join()  # it did go away
    server.server_close()
    assert list(tmp_path.rglob("run-*.wandb"))  # on the disk, to be uploaded later
