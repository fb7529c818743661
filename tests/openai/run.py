"""The unmodified OpenAI clients against a gateway over a local chain and two workers, one of which is killed half-way.

Starts every process by itself, in a folder that is removed afterwards. At the end: everything that the gateway promised is
within its budget, its sessions are closed, and a marked prompt and its answer are in no file and no log of any process.

usage: run.py CHRYSALIS MODEL [--keep]      (the openai package for Python on PYTHONPATH, that for JavaScript beside this)
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
CHRYSALIS, MODEL = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
PATIENCE_S = 180
CANARY = "canary-7b1f0c-marked-prompt"


class Service:
    """A process that goes on until it is stopped; the first JSON object that it prints are its facts."""

    def __init__(self, world, name, *arguments):
        self.log = open(world / f"{name}.log", "ab")
        self.process = subprocess.Popen(
            [CHRYSALIS, *arguments],
            cwd=world,
            env=os.environ | {"CHRYSALIS_LOG": "debug", "CHRYSALIS_NETWORK": "chain/network.json"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        said, self.facts = "", None
        for line in self.process.stdout:
            said += line
            try:
                self.facts = json.loads(said)
                break
            except json.JSONDecodeError:
                continue
        if self.facts is None:
            raise SystemExit(f"{name} ended: {(world / f'{name}.log').read_text()[-2000:]}")
        threading.Thread(target=self.drain, daemon=True).start()

    def drain(self):
        for line in self.process.stdout:
            self.log.write(line.encode())

    def stop(self):
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def kill(self):
        self.process.kill()
        self.process.wait()


def run(world, *arguments):
    done = subprocess.run(
        [CHRYSALIS, *arguments],
        cwd=world,
        env=os.environ | {"CHRYSALIS_NETWORK": "chain/network.json"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"chrysalis {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def worker(world, name):
    port = free_port()
    (world / f"{name}.toml").write_text(
        f"""network = "chain/network.json"
data_dir = "{name}"
[worker]
model = {json.dumps(MODEL)}
attestation = "simulator"
stake_nanoton = "10000000000"
gas_float_nanoton = "500000000"
kv_bytes = 1073741824
[worker.prices_nanoton_per_1k]
input = "1000000"
cached_input = "500000"
output = "4000000"
"""
    )
    (world / "passphrase").write_text("a passphrase of this test\n")
    words = {"one": "chain/worker.words", "two": "chain/owner.words"}[name]
    return Service(
        world, name, "worker", "--config", f"{name}.toml", "--owner-mnemonic", words,
        "--key-passphrase-file", "passphrase", "--listen", f"127.0.0.1:{port}",
    )


def post(base_url, path, body):
    request = urllib.request.Request(
        base_url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def wait_until(what, condition):
    until = time.time() + PATIENCE_S
    while not condition():
        if time.time() > until:
            raise SystemExit(f"waited too long: {what}")
        time.sleep(0.5)


def suite(name, command, base_url, model, halfway):
    process = subprocess.Popen(
        [*command, base_url, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.strip() == "HALFWAY":
            halfway()
            process.stdin.write("\n")
            process.stdin.flush()
        else:
            print(line, end="", flush=True)
    if process.wait() != 0:
        raise SystemExit(f"the {name} client failed")


def main():
    world = pathlib.Path(tempfile.mkdtemp(prefix="chrysalis-openai-"))
    services = []

    def start(*arguments):
        services.append(Service(world, *arguments))
        return services[-1]

    try:
        start(
            "localnet", "localnet", "--data-dir", "chain", "--block-interval-ms", "200",
            "--http-port", "0", "--liteserver-port", "0",
        )
        run(
            world, "model", "register", MODEL, "--mnemonic", "chain/publisher.words", "--royalty-bps", "500",
            "--name", "smol",
        )
        workers = []
        for name in ("one", "two"):
            services.append(worker(world, name))
            workers.append(services[-1])

        def offers():
            listed = run(world, "workers", "--dangerous-accept-simulated", "--json")
            return json.loads(listed)["offers"]

        wait_until("two workers on sale", lambda: len(offers()) == 2)
        gateway_arguments = (
            "--mnemonic", "chain/client.words", "--dangerous-accept-simulated", "--max-spend", "3000000000",
            "--deposit", "500000000",
        )
        gateway = start("gateway", "gateway", *gateway_arguments, "--listen", "127.0.0.1:0", "--json")
        base_url = gateway.facts["base_url"]
        model = "smol"
        marked = post(base_url, "/chat/completions", {
            "model": model, "max_tokens": 12, "temperature": 0,
            "messages": [{"role": "user", "content": f"Repeat: {CANARY}"}],
        })
        answered_by = marked["chrysalis"][0]["worker"]
        victim = next(one for one in workers if one.facts["worker"] == answered_by)

        def kill_the_worker_in_use():
            print(f"killing the worker in use, {answered_by}", flush=True)
            victim.kill()

        suite("Python", [sys.executable, str(HERE / "suite.py")], base_url, model, kill_the_worker_in_use)
        suite("JavaScript", ["node", str(HERE / "suite.mjs")], base_url, model, lambda: None)
        metrics = urllib.request.urlopen(base_url.removesuffix("/v1") + "/metrics").read().decode()
        assert CANARY not in metrics
        if gateway.stop() != 0:
            raise SystemExit("the gateway did not stop well")

        def sessions():
            listed = run(world, "session", "list", *gateway_arguments, "--json")
            return json.loads(listed)

        # The living worker redeems its session's last receipt; that with the dead one was asked on chain to end.
        wait_until(
            "a session is over",
            lambda: any(one["state"] in ("over", "settled") for one in sessions()["sessions"]),
        )
        listed = sessions()
        assert int(listed["committed_nanoton"]) <= 3_000_000_000, listed
        assert len(listed["sessions"]) >= 2, listed
        marks = [CANARY.encode(), marked["choices"][0]["message"]["content"].encode()]
        for path in world.rglob("*"):
            if path.is_file() and path.suffix != ".words":
                content = path.read_bytes()
                for mark in marks:
                    assert len(mark) < 8 or mark not in content, f"the marked prompt or its answer is in {path}"
        print(f"{len(listed['sessions'])} sessions, {listed['committed_nanoton']} nanoTON spent or held", flush=True)
    except BaseException:
        for log in sorted(world.glob("*.log")):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            print(f"== {log.name}\n{tail}", file=sys.stderr)
        raise
    finally:
        for one in services:
            one.kill()
        if "--keep" not in sys.argv:
            shutil.rmtree(world, ignore_errors=True)


main()
