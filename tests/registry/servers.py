"""Real servers for the registry's back-ends, each on a free port of this machine, in a folder that is thrown away.

They come from Debian's packages. A server that is not installed makes its test skip with the package's name, unless
MODELHUB_SERVERS=required, as our CI says.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = os.geteuid() == 0
WAIT = 60.0


def need(package: str, *programs: str) -> list[str]:
    """The paths of programs, also of those that lie outside of PATH; skips where one is missing."""
    places = ["/usr/sbin", "/usr/bin", *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    found = [shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *places])) for program in programs]
    if None in found:
        missing(f"Debian's {package} is not installed")
    return [path for path in found if path]


def missing(reason: str) -> None:
    if os.environ.get("MODELHUB_SERVERS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def until(ready: Callable[[], bool], what: str, log: Path) -> None:
    end = time.monotonic() + WAIT
    while not ready():
        if time.monotonic() > end:
            text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{what} did not start:\n{text}")
        time.sleep(0.1)


def as_user(name: str) -> dict[str, object]:
    """What subprocess needs to run a server that refuses to be root."""
    if not ROOT:
        return {}
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def give(folder: Path, name: str) -> Path:
    """A new folder that belongs to a server's user, in one it may enter."""
    folder.mkdir(parents=True, exist_ok=True)
    if ROOT:
        shutil.chown(folder, name, name)
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    return folder


@contextmanager
def running(command: list[str], log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # to PostgreSQL: without waiting for its clients
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    initdb, postgres = need("postgresql", "initdb", "postgres")
    user = as_user("postgres")
    data, port, log = give(folder / "data", "postgres"), free_port(), folder / "log"
    subprocess.run(
        [initdb, "-D", str(data), "-U", "modelhub", "-A", "trust", "--no-sync"],
        check=True, capture_output=True, cwd=data, **user,  # type: ignore[call-overload]
    )  # fmt: skip
    url = f"postgresql://modelhub@127.0.0.1:{port}/postgres"
    command = [postgres, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(data)]
    with running(command, log, cwd=data, **user):
        import psycopg

        def ready() -> bool:
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(f"host=127.0.0.1 port={port} user=modelhub dbname=postgres"),
            ):
                return True
            return False

        until(ready, "PostgreSQL", log)
        yield url


@contextmanager
def xrootd(folder: Path) -> Iterator[str]:
    """A ``root://`` URL."""
    (server,) = need("xrootd-server", "xrootd")
    try:
        import fsspec_xrootd  # noqa: F401
    except ImportError:
        missing("the Python package fsspec-xrootd is not installed")
    port, log = free_port(), folder / "log"
    store = give(folder / "data", "xrootd") / "store"
    give(store, "xrootd")
    run = give(folder / "run", "xrootd")
    config = folder / "xrootd.cfg"
    config.write_text(
        f"xrd.port {port}\nall.export /store\noss.localroot {store.parent}\nall.adminpath {run}\nall.pidpath {run}\n"
    )
    with running([server, *(["-R", "xrootd"] if ROOT else []), "-c", str(config), "-n", "test"], log, cwd=run):
        until(lambda: answers(port), "XRootD", log)
        yield f"root://127.0.0.1:{port}//store/models"


@contextmanager
def webdav(folder: Path) -> Iterator[str]:
    """A ``dav://`` URL."""
    (server,) = need("nginx-light and libnginx-mod-http-dav-ext", "nginx")
    module = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
    if not module.exists():
        missing("Debian's libnginx-mod-http-dav-ext is not installed")
    port, log = free_port(), folder / "log"
    (folder / "data").mkdir(parents=True)
    config = folder / "nginx.conf"
    config.write_text(
        f"""load_module {module};
        {"user root;" if ROOT else ""}
        pid {folder}/pid; daemon off; worker_processes 2;
        events {{}}
        http {{ access_log off; client_body_temp_path {folder}/tmp; client_max_body_size 1g;
          server {{ listen 127.0.0.1:{port}; root {folder}/data;
            location / {{ dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS;
                          create_full_put_path on; }} }} }}"""
    )
    with running([server, "-c", str(config), "-e", str(log)], log):
        until(lambda: answers(port), "nginx", log)
        yield f"dav://127.0.0.1:{port}/models"


PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {proxy}
workers = 2
user = {user}
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache s3api tempauth slo proxy-logging proxy-server
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:slo]
use = egg:swift#slo
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
"""

PART = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 1
user = {user}
devices = {devices}
mount_check = false
swift_dir = {folder}
disable_fallocate = true
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

RINGS = """
import sys
from swift.common.ring import RingBuilder
for name, port in (argument.split("=") for argument in sys.argv[2:]):
    ring = RingBuilder(4, 1, 0)
    ring.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1.0))
    ring.rebalance()
    ring.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""


@contextmanager
def swift(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An ``s3://`` URL; endpoint and keys are in the environment, where Amazon's libraries look for them."""
    names = ("proxy", "account", "container", "object")
    servers = dict(zip(names, need("swift", *(f"swift-{name}-server" for name in names)), strict=True))
    (memcached,) = need("memcached", "memcached")
    try:
        import s3fs
    except ImportError:
        missing("the Python package s3fs is not installed")
    user = "swift" if ROOT else pwd.getpwuid(os.geteuid()).pw_name
    give(folder, user)
    devices = give(folder / "devices", user)
    give(devices / "d1", user)
    ports = {name: free_port() for name in (*names, "memcached")}
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        "[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    for name in names[1:]:
        (folder / f"{name}.conf").write_text(
            PART.format(name=name, port=ports[name], user=user, devices=devices, folder=folder)
        )
    (folder / "proxy.conf").write_text(
        PROXY.format(proxy=ports["proxy"], memcached=ports["memcached"], user=user, folder=folder)
    )
    # One process for all rings: swift-ring-builder would take one, and two seconds, for every step.
    rings = [f"{name}={ports[name]}" for name in names[1:]]
    subprocess.run(["/usr/bin/python3", "-c", RINGS, str(folder), *rings], check=True, capture_output=True)
    log = folder / "log"
    cache = [memcached, "-l", "127.0.0.1", "-p", str(ports["memcached"]), *(["-u", user] if ROOT else [])]
    with ExitStack() as stack:
        stack.enter_context(running(cache, log))
        for name in (*names[1:], "proxy"):
            stack.enter_context(running([servers[name], str(folder / f"{name}.conf")], log, cwd=folder))
        for name in ports:
            until(lambda port=ports[name]: answers(port), f"Swift's {name}", log)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{ports['proxy']}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test:tester")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("models")
        yield "s3://models/registry"
        s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def started() -> Iterator[Callable[[str], str]]:
    """URLs of servers by name; each is started when first asked for, and all stop at the end.

    Their folders lie outside of pytest's, which every pytest closes to other users when it starts.
    """
    patch, urls = pytest.MonkeyPatch(), {}
    with TemporaryDirectory(prefix="modelhub-servers-", ignore_cleanup_errors=True) as folders, ExitStack() as stack:
        stack.callback(patch.undo)

        def url_of(name: str) -> str:
            if name not in urls:
                folder = Path(folders) / name
                folder.mkdir()
                server = swift(folder, patch) if name == "swift" else SERVERS[name](folder)
                urls[name] = stack.enter_context(server)
            return urls[name]

        yield url_of


SERVERS = {"postgresql": postgresql, "xrootd": xrootd, "webdav": webdav}


def new_database(url: str, name: str) -> str:
    """The URL of a new, empty database on a server."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{url.rpartition('/')[0]}/{name}"
