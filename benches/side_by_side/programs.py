"""The servers and the proxies: how each is configured, started, found ready, and ended. Everything is on loopback."""

import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import readings

START_S = 15
END_S = 3
PING_S = 2
# A port that was free a moment ago may be taken.
ATTEMPTS = 3
STEP_S = 0.02
SENTINELS = 3
# Sessions take two descriptors each in a proxy, one in the server.
SPARE_DESCRIPTORS = 200
MOST_SERVER_CLIENTS = 15_000
# By these names, in this order, the demo looks for a server, too; the last two are the server under another name.
SERVERS = ["valkey-server", "redis-server", "redis-check-rdb", "valkey-check-rdb"]
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class NotStarted(Exception):
    pass


@dataclass(frozen=True)
class Program:
    name: str
    label: str
    # Its own address of the same server, so that one proxy's closed connections never take another's ports.
    upstream: str
    args: callable


class Running:
    """A child in a group of its own: Ctrl-C ends the rig, and the rig ends the child."""

    def __init__(self, args, folder, log, executable=None):
        self.args = args
        with open(log, "ab") as out:
            self.child = subprocess.Popen(
                args, executable=executable, cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, start_new_session=True, preexec_fn=end_with_parent, env=clean_environment(),
            )

    def pids(self):
        return readings.family(self.child.pid)

    def end(self):
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self.child.poll() is not None:
                break
            os.killpg(self.child.pid, how)
            try:
                self.child.wait(END_S)
            except subprocess.TimeoutExpired:
                pass


def end_with_parent():
    # Also when the rig is killed; a master of nginx ends its workers on SIGTERM.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def clean_environment():
    """Without settings of the caller's: the program is measured in its default configuration."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SWITCHMASTER_") and k != "RUST_LOG"}


class Bench:
    """The topology and the proxies; `with` ends them all."""

    def __init__(self, folder, binaries, descriptors, tls=False):
        self.folder = Path(folder)
        self.tls = certificate(self.folder) if tls else None
        self.binaries = binaries
        self.descriptors = descriptors
        self.children = []
        self.server_port = None
        self.sentinel_ports = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave half of them running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(self.children):
            child.end()

    def start_servers(self):
        addresses = sorted({program.upstream for program in PROGRAMS.values()})

        def server(port):
            return ["redis-server", "--port", str(port), "--bind", *addresses, "--protected-mode", "no", "--save", "",
                    "--appendonly", "no", "--dir", str(self.folder), "--tcp-backlog", "4096", "--maxclients",
                    str(min(MOST_SERVER_CLIENTS, self.descriptors - SPARE_DESCRIPTORS))]

        _, self.server_port = self.start("server", server, self.binaries["server"])
        for number in range(SENTINELS):
            config = self.folder / f"sentinel-{number}.conf"

            def sentinel(port):
                config.write_text(
                    f"port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {self.folder}\n"
                    f"sentinel monitor mymaster 127.0.0.1 {self.server_port} 2\n"
                )
                return ["redis-sentinel", str(config), "--sentinel"]

            self.sentinel_ports.append(self.start(f"sentinel-{number}", sentinel, self.binaries["server"])[1])

    def start_program(self, name):
        """Returns the child and its port, once a PING through it is answered."""
        program = PROGRAMS[name]
        return self.start(name, lambda port: program.args(self, program, port), tls=self.tls is not None)

    def start(self, name, args, executable=None, tls=False):
        log = self.folder / f"{name}.log"
        for _ in range(ATTEMPTS):
            port = free_port()
            running = Running(args(port), self.folder, log, executable)
            self.children.append(running)
            end = time.monotonic() + START_S
            while time.monotonic() < end and running.child.poll() is None:
                if answers(port, tls):
                    return running, port
                time.sleep(STEP_S)
            running.end()
        raise NotStarted(f"{name} does not start: {' '.join(running.args)}\n{log.read_text()[-1000:]}")

    def end(self, running):
        running.end()
        self.children.remove(running)


def switchmaster(on_switch=None):
    """As it is by default, or with this `on_switch`."""

    def args(bench, _program, port):
        sentinels = ",".join(f"127.0.0.1:{port}" for port in bench.sentinel_ports)
        setting = [f"SWITCHMASTER_FAILOVER_ON_SWITCH={on_switch}"] if on_switch else []
        if bench.tls:
            setting += [f"SWITCHMASTER_PROXY_CLIENT_TLS_{kind}_FILE={bench.tls}" for kind in ("CERT", "KEY")]
        return ["env", *setting, bench.binaries["switchmaster"], "run", "--sentinel", sentinels, "--master", "mymaster",
                "--listen", f"127.0.0.1:{port}"]

    return args


def floor(bench, program, port):
    return [bench.binaries["floor"], f"127.0.0.1:{port}", f"{program.upstream}:{bench.server_port}"]


def haproxy(threads=1, buffer=None):
    """No log, no checks, no statistics: forwarding and nothing else. It sets TCP_NODELAY on both sides by itself."""

    def args(bench, program, port):
        config = bench.folder / f"{program.name}.cfg"
        tune = f"  tune.bufsize {buffer}\n" if buffer else ""
        config.write_text(
            f"global\n  nbthread {threads}\n  maxconn {(bench.descriptors - SPARE_DESCRIPTORS) // 2}\n{tune}"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
            f"listen redis\n  bind 127.0.0.1:{port} backlog 4096{f' ssl crt {bench.tls}' if bench.tls else ''}\n"
            f"  server master {program.upstream}:{bench.server_port}\n"
        )
        return ["haproxy", "-db", "-q", "-f", str(config)]

    return args


def nginx(bench, program, port):
    folder = bench.folder / "nginx"
    folder.mkdir(exist_ok=True)
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    load = f"load_module {module};\n" if module.exists() else ""
    # 32 KiB holds a value of 16 KiB and its header: the size that is best for switchmaster, too.
    (folder / "nginx.conf").write_text(
        f"{load}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log crit;\n"
        f"worker_rlimit_nofile {bench.descriptors};\n"
        f"events {{ worker_connections {bench.descriptors - SPARE_DESCRIPTORS}; accept_mutex off; }}\n"
        "stream {\n  access_log off;\n  tcp_nodelay on;\n  proxy_buffer_size 32k;\n  proxy_connect_timeout 5s;\n"
        "  proxy_timeout 1h;\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass {program.upstream}:{bench.server_port}; }}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")]


# In the order of the tables. The first is the product, `BASE` is what the others are compared with.
PROGRAMS = {
    program.name: program
    for program in [
        Program("switchmaster", "switchmaster", "127.0.0.1", switchmaster()),
        Program("switchmaster-close", "switchmaster, on_switch = close", "127.0.0.1", switchmaster("close")),
        Program("floor", "bare floor", "127.0.0.2", floor),
        Program("haproxy", "HAProxy", "127.0.0.3", haproxy()),
        Program("haproxy-again", "HAProxy again", "127.0.0.4", haproxy()),
        Program("haproxy-2t", "HAProxy, 2 threads", "127.0.0.5", haproxy(threads=2)),
        Program("haproxy-32k", "HAProxy, 32 KiB buffers", "127.0.0.6", haproxy(buffer=32768)),
        Program("nginx", "nginx stream", "127.0.0.7", nginx),
    ]
}
PRODUCT, BASE, CONTROL, FLOOR, DIRECT = "switchmaster", "haproxy", "haproxy-again", "floor", "direct"
# Those that end TLS here.
WITH_TLS = {"switchmaster", "switchmaster-close", "haproxy", "haproxy-again", "haproxy-2t", "haproxy-32k"}
# Not a default of HAProxy's, so only on demand.
ON_DEMAND = {"haproxy-32k"}
LABELS = {name: program.label for name, program in PROGRAMS.items()} | {DIRECT: "direct"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificate(folder):
    """A certificate of its own making and its key (P-256, as most are made now) in one file."""
    key, cert, both = (folder / name for name in ("key.pem", "cert.pem", "both.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
                   check=True, capture_output=True, timeout=START_S)
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    both.chmod(0o600)
    return both


def connect(port, tls, limit):
    """A connection to a proxy or a server of this run; with TLS to whoever is there."""
    plain = socket.create_connection(("127.0.0.1", port), limit)
    if not tls:
        return plain
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain)


def answers(port, tls=False):
    try:
        with connect(port, tls, PING_S) as s:
            s.settimeout(PING_S)
            s.sendall(b"PING\r\n")
            return s.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def find_server():
    for name in SERVERS:
        if path := shutil.which(name):
            return path
    raise NotStarted("no Redis or Valkey server in PATH: scripts/setup servers installs one")


def versions(binaries, names):
    def first(*args, **more):
        done = subprocess.run(args, capture_output=True, text=True, timeout=START_S, **more)
        return (done.stdout + done.stderr).strip().partition("\n")[0]

    asked = {
        "server": first("redis-server", "--version", executable=binaries["server"]),
        "redis-benchmark": first("redis-benchmark", "--version"),
        "switchmaster": first(binaries["switchmaster"], "--version"),
        "haproxy": first("haproxy", "-v"),
    }
    if "nginx" in names:
        asked["nginx"] = first("nginx", "-v").removeprefix("nginx version: ")
    return asked
