"""Federations over a real SuperLink of Flower 1.41, with Tacit on either end or on both.

    python flower.py TACIT [SCENARIO …]

TACIT is the executable; `flwr` 1.41.0 must be installed beside this Python. Scenarios (default: all):

    stock-server   Flower's FedAvg and four `tacit federate node`: the final adapter is that of `tacit federate run`, bit for bit
    both           `tacit federate coordinate` and four nodes, plain, compressed with merged residuals, SCAFFOLD in signed payloads, and under a
                   secure sum: the same bits again
    head           the head of the model that judges videos: a coordinator without any table, four nodes of which each has its own only, plain and
                   under a secure sum: the same bits again
    deadline       a node that has stopped is left out of a secure sum's rounds when they are over, and takes part again when it goes on
    silent         without a deadline: a node that stops after the first round is waited for, then a round goes on without it, and it takes part
                   again when it goes on
    buffer         no rounds: steps of two updates, while a node stands still and comes back with an old one
    forged         a node that signs with another key than the roster's is left out of every round
    nonsense       a node whose answers are none (an error, 96 MiB of noise, wrong shapes, values of 3e38): every round ends without it and
                   without a deadline, and the coordinator's memory stays small
    stock-nodes    `tacit federate coordinate` and four nodes of Flower's with a Python ClientApp
    supernode      four `flower-supernode --isolation process`, each with a `tacit federate node` that does the work
    tls            certificates and node authentication: registered keys take part, others are refused
    kills          coordinator and nodes killed at random instants and started again: the same bits as an undisturbed run
"""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).parent.resolve()
BIN = pathlib.Path(sys.executable).parent
CLIENTS = 4
ROUNDS = 3
CONFIG = """
rounds = {rounds}
combine = "{combine}"
roster = {roster}
[data]
clients = 4
grammar = {{ documents = 40 }}
[base]
random = {{ hidden = 32, layers = 1, heads = 2, ffn = 64, vocab = 300, context = 16 }}
[train]
steps = 4
batch = 8
lr = 1e-2
{stages}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class World:
    """A folder, and processes that end with it."""

    def __init__(self, tacit):
        self.tacit = tacit
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.processes = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.tls = None
        self.env = dict(
            os.environ,
            PATH=f"{BIN}:{os.environ['PATH']}",
            FLWR_HOME=str(self.dir / "flwr"),
            FLWR_TELEMETRY_ENABLED="0",
            RAYON_NUM_THREADS="1",
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in reversed(self.processes):
            self.end(p)
        if os.environ.get("TACIT_KEEP"):
            print(f"kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def end(self, p, how=signal.SIGTERM):
        # Each in a group of its own: what it started ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, how)
        try:
            p.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()

    def start(self, name, *command):
        log = open(self.dir / f"{name}.log", "ab")
        p = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=self.env, cwd=self.dir, start_new_session=True,
        )
        self.processes.append(p)
        return p

    def run(self, *command, check=True):
        done = subprocess.run(
            [str(c) for c in command], capture_output=True, text=True, env=self.env, cwd=self.dir, timeout=300
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command} failed:\n{done.stdout}\n{done.stderr}\n{self.logs()}")
        return done

    def logs(self):
        return "\n".join(f"--- {p.name}\n{p.read_text()[-2000:]}" for p in sorted(self.dir.glob("*.log")))

    def config(self, name="run", stages="", combine="average", roster="[]", rounds=ROUNDS):
        path = self.dir / f"{name}.toml"
        path.write_text(CONFIG.format(stages=stages, combine=combine, roster=roster, rounds=rounds))
        return path

    def superlink(self, *more):
        secure = self.tls or ["--insecure"]
        p = self.start("superlink", BIN / "flower-superlink", *secure, "--host", "127.0.0.1", "--port", self.port,
                       "--disable-runtime-dependency-installation", *more)
        until = time.time() + 90
        while time.time() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return p
            assert p.poll() is None, self.logs()
            time.sleep(0.2)
        raise AssertionError(self.logs())

    def app(self):
        """The app that runs are submitted with, copied once."""
        app = self.dir / "app"
        if not app.exists():
            shutil.copytree(HERE / "flower_app", app, ignore=shutil.ignore_patterns("__pycache__"))
        return app

    def submit(self, **settings):
        home = self.dir / "flwr"
        home.mkdir(exist_ok=True)
        trust = "insecure = true" if self.tls is None else f'root-certificates = "{self.dir}/ca.crt"'
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\n{trust}\n'
        )
        values = " ".join(f'{k}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in settings.items())
        more = ["--run-config", values] if values else []
        return self.run(BIN / "flwr", "run", self.app(), "here", *more)

    def nodes(self, config, *more, superlink=True):
        at = ["--superlink", self.url] if superlink else []
        return [self.node(config, k, *at, *more) for k in range(CLIENTS)]

    def node(self, config, k, *more):
        return self.start(f"node-{k}", self.tacit, "federate", "node", config, "--client", k,
                          "--out", self.dir / f"node-{k}", "--identity", self.dir / f"identity-{k}", *more)

    def embedded(self, config):
        out = self.dir / f"embedded-{config.stem}"
        done = self.run(self.tacit, "federate", "run", config, "--json", "--out", out)
        return out, [r["hash"] for r in json.loads(done.stdout)["rounds"]]

    def coordinator(self, config, *more):
        """A coordinator in the background; what it prints is in `coordinator.log`."""
        return self.start("coordinator", *self.coordinate_command(config, *more))

    def coordinate(self, config, *more):
        """A coordinator to its end."""
        report = json.loads(self.run(*self.coordinate_command(config, *more)).stdout)
        return [r["hash"] for r in report["rounds"]], report

    def coordinate_command(self, config, *more):
        if "--resume" not in more:
            more = (*more, "--overwrite")
        return [self.tacit, "federate", "coordinate", config, "--superlink", self.url, "--json",
                "--out", self.dir / "coordinator", "--wait", 120, *more]


def safetensors(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + size])
    out = {}
    for name, t in head.items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            out[name] = np.frombuffer(data[8 + size + a : 8 + size + b], "<f4").reshape(t["shape"])
    return out


def adapter(folder):
    all_of = safetensors(folder / "run.safetensors")
    return {n.removeprefix("adapter/"): v for n, v in all_of.items() if n.startswith("adapter/")}


def stock_server(w):
    config = w.config()
    out, _ = w.embedded(config)
    w.superlink()
    w.nodes(config)
    result = w.dir / "result.npz"
    w.submit(out=str(result), rounds=ROUNDS, nodes=CLIENTS)
    until = time.time() + 240
    while not result.exists() and time.time() < until:
        time.sleep(0.5)
    assert result.exists(), w.logs()
    time.sleep(0.5)
    want, got = adapter(out), dict(np.load(result))
    assert want.keys() == got.keys(), (want.keys(), got.keys())
    for name in want:
        assert got[name].dtype == np.float32 and np.array_equal(want[name], got[name]), f"{name} differs"
    return f"{len(want)} tensors, {sum(v.size for v in want.values())} values, {ROUNDS} rounds of Flower's FedAvg: bit for bit the embedded run"


def identities(w, config):
    keys = []
    for k in range(CLIENTS):
        shown = w.run(w.tacit, "federate", "node", config, "--client", k, "--identity", w.dir / f"identity-{k}",
                      "--out", w.dir / f"node-{k}", "--show-identity", "--json")
        keys.append(json.loads(shown.stdout))
    return keys


def both(w):
    said = []
    for name, stages, combine in [
        ("plain", "", "average"),
        ("compressed", '[[stage]]\nkind = "quantise"\nvalues = "int4"\n', "residual"),
        ("scaffold, signed", 'optimiser = "sgd"\nscaffold = true\n[[stage]]\nkind = "signed"\n', "average"),
        ("secure", '[[stage]]\nkind = "clip"\nnorm = 0.5\n[[stage]]\nkind = "secure-sum"\n', "average"),
        ("noise", '[rule]\nkind = "fedadam"\n[[stage]]\nkind = "noise"\nepsilon = 20\nclip = 0.5\nexamples = 12\n'
                  '[[stage]]\nkind = "secure-sum"\n', "average"),
    ]:
        with World(w.tacit) as v:
            config = v.config("run", stages, combine)
            roster = json.dumps([i["roster"] for i in identities(v, config)])
            config = v.config("run", stages, combine, roster)
            _, want = v.embedded(config)
            v.superlink("--isolation", "process")
            v.nodes(config)
            v.submit()
            began = time.time()
            got, report = v.coordinate(config)
            if name == "noise":
                spent = [r["epsilon"] for r in report["rounds"]]
                assert spent == sorted(spent) and 0 < spent[-1] <= 20, spent
                said.append(f"{name} (epsilon {spent[-1]:.2f})")
            else:
                assert got == want, f"{name}: {got} {want}\n{v.logs()}"
                said.append(name)
            assert all(r["validation_perplexity"] > 1 for r in report["rounds"]), report
            said[-1] += f" {time.time() - began:.1f} s"
    return ", ".join(said)


SECURE = '[[stage]]\nkind = "clip"\nnorm = 0.5\n[[stage]]\nkind = "secure-sum"\n'


def head(w):
    tables = [f"table-{k}.safetensors" for k in range(CLIENTS)]
    for table, place in zip(tables, ["room", "kitchen", "park", "street"]):
        w.run(w.tacit, "inspect", "head", "--features", table, "--place", place, "--clips", 24, "--json")
    said = []
    for name, stages in [("plain", ""), ("secure", SECURE)]:
        with World(w.tacit) as v:

            def config(file, tables, roster="[]"):
                path = v.dir / f"{file}.toml"
                path.write_text(
                    f"rounds = {ROUNDS}\nroster = {roster}\n[head]\ntables = {json.dumps(tables)}\nstart = \"blank\"\n"
                    f"[data]\nvalidation_percent = 34\n[train]\nsteps = 4\nbatch = 8\nlr = 1e-3\n{stages}"
                )
                return path

            everywhere = config("run", tables)
            roster = json.dumps([i["roster"] for i in identities(v, everywhere)])
            for table in tables:
                shutil.copy(w.dir / table, v.dir)
            _, want = v.embedded(config("run", tables, roster))
            v.superlink("--isolation", "process")
            for k, table in enumerate(tables):
                mine = v.dir / f"of-{k}.safetensors"
                (v.dir / table).rename(mine)
                own = ["elsewhere"] * CLIENTS
                own[k] = mine.name
                v.node(config(f"node-{k}", own, roster), k, "--superlink", v.url)
            v.submit()
            began = time.time()
            # Neither has the coordinator a table.
            got, report = v.coordinate(everywhere)
            assert got == want, f"{name}: {got} {want}\n{v.logs()}"
            here = (v.dir / "embedded-run" / "head.safetensors").read_bytes()
            assert here == (v.dir / "coordinator" / "head.safetensors").read_bytes(), name
            up = sum(r["bytes_up"] for r in report["rounds"])
            said.append(f"{name} {time.time() - began:.1f} s, {up / 1e6:.1f} MB up")
    return f"{report['trained_values']} values, {ROUNDS} rounds: " + ", ".join(said)


def deadline(w):
    stages = "[clock]\ndeadline = 4\n" + SECURE
    config = w.config(stages=stages)
    roster = json.dumps([i["roster"] for i in identities(w, config)])
    config = w.config(stages=stages, roster=roster, rounds=6)
    w.superlink("--isolation", "process")
    nodes = w.nodes(config)
    until = time.time() + 60
    while not all((w.dir / f"node-{k}" / f"node-{k}.node").exists() for k in range(CLIENTS)) and time.time() < until:
        time.sleep(0.2)
    slow = nodes[2]
    os.killpg(slow.pid, signal.SIGSTOP)
    w.submit()
    out = w.dir / "coordinator"
    coordinator = w.coordinator(config)
    while not (out / "run.safetensors").exists() and coordinator.poll() is None:
        time.sleep(0.1)
    os.killpg(slow.pid, signal.SIGCONT)
    assert coordinator.wait(timeout=120) == 0, w.logs()
    rounds = report_of(w)["rounds"]
    assert rounds[0]["clients"] == [0, 1, 3] and rounds[0]["late"] == [2], rounds[0]
    assert rounds[-1]["clients"] == [0, 1, 2, 3] and "late" not in rounds[-1], rounds[-1]
    without = sum("late" in r for r in rounds)
    return f"of {len(rounds)} rounds of a secure sum {without} closed without the stopped node, the others with it"


def silent(w):
    config = w.config(rounds=12)
    w.superlink("--isolation", "process")
    nodes = w.nodes(config)
    w.submit()
    checkpoint = w.dir / "coordinator" / "run.safetensors"
    coordinator = w.coordinator(config, "--deadline", 5, "--silence", 15)
    while not checkpoint.exists() and coordinator.poll() is None:
        time.sleep(0.02)
    os.killpg(nodes[2].pid, signal.SIGSTOP)
    while b'\\"late\\":[2]' not in checkpoint.read_bytes() and coordinator.poll() is None:
        time.sleep(0.1)
    os.killpg(nodes[2].pid, signal.SIGCONT)
    assert coordinator.wait(timeout=200) == 0, w.logs()
    rounds = report_of(w)["rounds"]
    without = [r for r in rounds if "late" in r]
    assert len(rounds) == 12 and 1 <= len(without) < 11, rounds
    assert all(r["late"] == [2] and r["clients"] == [0, 1, 3] for r in without), rounds
    assert without[0]["seconds"] >= 15, without[0]
    assert rounds[-1]["clients"] == [0, 1, 2, 3], rounds[-1]
    log = (w.dir / "coordinator.log").read_text()
    assert "clients [2] do not answer" in log and "clock.deadline" in log, w.logs()
    return f"it was waited for {without[0]['seconds']:.0f} s and left out of {len(without)} of 12 rounds"


def buffer(w):
    stages = '[clock]\nbuffer = 2\n[[stage]]\nkind = "top-k"\nshare = 0.5\n[[stage]]\nkind = "signed"\n'
    config = w.config(stages=stages)
    roster = json.dumps([i["roster"] for i in identities(w, config)])
    config = w.config(stages=stages, roster=roster, rounds=24)
    w.superlink("--isolation", "process")
    nodes = w.nodes(config)
    w.submit()
    out = w.dir / "coordinator"
    coordinator = w.coordinator(config)
    while not (out / "run.safetensors").exists() and coordinator.poll() is None:
        time.sleep(0.02)
    os.killpg(nodes[2].pid, signal.SIGSTOP)
    # It stands still for eight steps, which the others take.
    written, times = (out / "run.safetensors").stat().st_mtime_ns, 0
    while times < 8 and coordinator.poll() is None:
        time.sleep(0.01)
        now = (out / "run.safetensors").stat().st_mtime_ns
        written, times = now, times + (now != written)
    os.killpg(nodes[2].pid, signal.SIGCONT)
    assert coordinator.wait(timeout=200) == 0, w.logs()
    steps = report_of(w)["rounds"]
    assert len(steps) == 24 and all(len(r["clients"]) == 2 for r in steps), steps
    assert {k for r in steps for k in r["clients"]} == {0, 1, 2, 3}, steps
    oldest = max(t for r in steps for t in r["staleness"])
    assert oldest >= 5, steps
    losses = [r["train_loss"] for r in steps]
    assert sum(losses[-6:]) < sum(losses[:6]) and steps[-1]["validation_perplexity"] > 1, steps
    return f"24 steps of two updates, the oldest {oldest} steps behind"


def forged(w):
    stages = '[clock]\ndeadline = 20\n[[stage]]\nkind = "signed"\n'
    config = w.config(stages=stages)
    keys = [i["roster"] for i in identities(w, config)]
    config = w.config(stages=stages, roster=json.dumps(keys))
    # Client 2's node lost the key that the roster has, or another node pretends to be it.
    (w.dir / "identity-2").unlink()
    w.superlink("--isolation", "process")
    w.nodes(config)
    w.submit()
    w.coordinator(config).wait(timeout=120)
    report = report_of(w)
    assert [r["clients"] for r in report["rounds"]] == [[0, 1, 3]] * ROUNDS, report
    said = (w.dir / "coordinator.log").read_text()
    assert said.count("the signature or the content") >= ROUNDS, said
    return f"{ROUNDS} rounds, each without the node whose signatures are not of the roster"


def nonsense(w):
    rounds = 4
    config = w.config(rounds=rounds)
    project = w.app() / "pyproject.toml"
    project.write_text(project.read_text().replace("tacit_interop.client:app", "tacit_interop.nonsense:app"))
    w.superlink("--isolation", "process")
    for k in [0, 1, 3]:
        w.node(config, k, "--superlink", w.url)
    w.start("supernode", BIN / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{w.port}", "--port", free_port(),
            "--node-config", "client=2")
    w.submit()
    coordinator = w.coordinator(config)
    peak, until = 0, time.time() + 280
    while coordinator.poll() is None and time.time() < until:
        with contextlib.suppress(OSError, AttributeError):
            status = pathlib.Path(f"/proc/{coordinator.pid}/status").read_text()
            peak = max(peak, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10)
        time.sleep(0.1)
    assert coordinator.poll() == 0, w.logs()
    report = report_of(w)
    for r in report["rounds"]:
        assert r["clients"] == [0, 1, 3] and r["failed"] == [2] and "late" not in r, r
        assert r["validation_perplexity"] > 1, r
    said = (w.dir / "coordinator.log").read_text()
    for problem in ["RuntimeError", "in one message", "expected", "3e38"]:
        assert problem in said, f"{problem}: {said}"
    assert 0 < peak < 96, f"{peak} MiB"
    return f"{rounds} rounds, each without the node that answers nonsense, {peak} MiB of memory at most"


def report_of(w):
    """What a coordinator in the background printed at its end."""
    text = (w.dir / "coordinator.log").read_text()
    assert '{\n  "stages"' in text, w.logs()
    return json.loads(text[text.rindex('{\n  "stages"') :])


def stock_nodes(w):
    config = w.config()
    w.superlink("--isolation", "process")
    for k in range(CLIENTS):
        w.start(f"supernode-{k}", BIN / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{w.port}",
                "--port", free_port())
    w.submit()
    out, _ = w.embedded(config)
    _, report = w.coordinate(config, "--deadline", 200)
    # Four clients that add 1 each: their average is the start plus 1, in every round.
    assert all(abs(r["validation_perplexity"] - np.exp(2.0)) < 1e-9 for r in report["rounds"]), report
    got = adapter(w.dir / "coordinator")
    biases = [v for n, v in got.items() if n.endswith("lora_b")]
    assert biases and all(np.allclose(b, ROUNDS, atol=1e-4) for b in biases), "B began at 0"
    assert got.keys() == adapter(out).keys()
    return f"{ROUNDS} rounds with Flower's nodes and a Python ClientApp"


def supernode(w):
    config = w.config()
    _, want = w.embedded(config)
    w.superlink("--isolation", "process")
    for k in range(CLIENTS):
        port = free_port()
        w.start(f"supernode-{k}", BIN / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{w.port}",
                "--isolation", "process", "--port", port)
        w.node(config, k, "--supernode", f"http://127.0.0.1:{port}")
    w.submit()
    got, _ = w.coordinate(config, "--deadline", 200)
    assert got == want, w.logs()
    return f"{ROUNDS} rounds behind stock SuperNodes: bit for bit the embedded run"


def certificates(w):
    """An authority and a server's certificate for 127.0.0.1."""
    text = "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
    (w.dir / "san").write_text(text)
    ssl = shutil.which("openssl")
    w.run(ssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
          "-subj", "/CN=tacit test", "-addext", "basicConstraints=critical,CA:TRUE")
    w.run(ssl, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    w.run(ssl, "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.crt",
          "-days", "2", "-extfile", "san")
    w.tls = ["--ssl-ca-certfile", w.dir / "ca.crt", "--ssl-certfile", w.dir / "server.crt", "--ssl-keyfile", w.dir / "server.key"]
    w.url = f"https://127.0.0.1:{w.port}"


def tls(w):
    if not shutil.which("openssl"):
        return "skipped, openssl is needed to make certificates"
    config = w.config()
    _, want = w.embedded(config)
    certificates(w)
    w.superlink("--isolation", "process", "--enable-supernode-auth")
    trust = ["--root-certificate", w.dir / "ca.crt"]
    stranger = w.run(w.tacit, "federate", "node", config, "--client", 0, "--superlink", w.url, "--registered", *trust,
                     "--out", w.dir / "stranger", "--patience", 3, check=False)
    assert stranger.returncode != 0 and "activate-node" in stranger.stderr, stranger.stderr
    untrusting = w.run(w.tacit, "federate", "node", config, "--client", 0, "--superlink", w.url, "--registered",
                       "--out", w.dir / "stranger", "--patience", 1, check=False)
    assert untrusting.returncode != 0 and "certificate" in untrusting.stderr.lower(), untrusting.stderr
    w.submit()
    for k, shown in enumerate(identities(w, config)):
        public = w.dir / f"node-{k}.pub"
        public.write_text(shown["node_key"] + "\n")
        w.run(BIN / "flwr", "supernode", "register", public, "here")
    w.nodes(config, "--registered", *trust)
    got, _ = w.coordinate(config, *trust)
    assert got == want, w.logs()
    return "TLS with an own authority, registered P-384 keys; an unknown key and an unknown authority are refused"


def kills(w):
    count = int(os.environ.get("TACIT_KILLS", "4"))
    stages = '[[stage]]\nkind = "top-k"\nshare = 0.2\n'
    # Enough rounds that the kills fall into them.
    rounds = max(8, count)
    config = w.config("kills", stages, rounds=rounds)
    _, want = w.embedded(config)
    w.superlink("--isolation", "process", "--database", w.dir / "state.db")
    at = ["--superlink", w.url]
    nodes = w.nodes(config)
    w.submit()
    random.seed(20261121)
    coordinator = w.coordinator(config, "--resume")
    done = 0
    while done < count and coordinator.poll() is None:
        time.sleep(random.uniform(0.1, 2.5))
        if coordinator.poll() is not None:
            break
        if random.random() < 0.5:
            w.end(coordinator, signal.SIGKILL)
            # A run whose coordinator is lost is ended by the SuperLink; a new one goes on from the checkpoint.
            w.submit()
            coordinator = w.coordinator(config, "--resume")
        else:
            k = random.randrange(CLIENTS)
            w.end(nodes[k], signal.SIGKILL)
            nodes[k] = w.node(config, k, *at)
        done += 1
    assert coordinator.wait(timeout=300 + 12 * rounds) == 0, w.logs()
    got = [r["hash"] for r in report_of(w)["rounds"]]
    assert got == want, f"{got}\n{want}\n{w.logs()}"
    return f"{done} kills, {rounds} rounds: bit for bit the undisturbed run"


SCENARIOS = {
    "stock-server": stock_server, "both": both, "head": head, "deadline": deadline, "silent": silent,
    "buffer": buffer, "forged": forged, "nonsense": nonsense,
    "stock-nodes": stock_nodes, "supernode": supernode, "tls": tls, "kills": kills,
}


def main():
    tacit, *chosen = sys.argv[1:]
    tacit = str(pathlib.Path(tacit).resolve())
    for name in chosen or SCENARIOS:
        began = time.time()
        with World(tacit) as w:
            said = SCENARIOS[name](w)
        print(f"flower, {name}: {said} ({time.time() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
