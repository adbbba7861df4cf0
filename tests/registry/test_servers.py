"""The registry's contract once more, on real servers: PostgreSQL, XRootD, WebDAV (nginx) and S3 (OpenStack Swift)."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from registry_helpers import digest
from test_blobs import *  # noqa: F403 - the same contract, with the stores below
from test_catalog import (  # noqa: F401
    test_aliases,
    test_get,
    test_names_that_differ_in_capitals_only,
    test_provenance,
    test_publish_and_look_up,
    test_reports_must_be_about_these_files_and_untouched,
    test_roles,
    test_two_files_of_one_source,
    test_which,
)
from test_gate import (  # noqa: F401
    test_a_report_of_other_bytes_does_not_count,
    test_force_is_not_noted_where_it_was_not_needed,
    test_force_needs_a_reason_and_is_recorded_for_ever,
    test_passing_reports_of_every_export_open_it,
    test_without_evidence,
)

from modelhub.errors import RegistryError
from modelhub_registry import Registry
from modelhub_registry.remote import Remote

STORES = ["xrootd", "webdav", pytest.param("swift", marks=pytest.mark.heavy)]
PLACES = ["postgresql", *STORES]
fresh = itertools.count()


@pytest.fixture(scope="module")
def urls() -> Iterator[Callable[[str], str]]:
    """Each server is started when the first test wants it."""
    with servers.started() as url_of:
        yield url_of


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, urls: Callable[[str], str]) -> Remote:
    return Remote(f"{urls(request.param)}/store{next(fresh)}")


@pytest.fixture(params=PLACES)
def where(request: pytest.FixtureRequest, urls: Callable[[str], str], tmp_path: Path) -> tuple[str, str]:
    """The store and the database of a registry that nobody has made yet."""
    url = urls(request.param)
    if request.param == "postgresql":
        return str(tmp_path / "registry"), servers.new_database(url, f"registry{next(fresh)}")
    return f"{url}/registry{next(fresh)}", f"sqlite:///{tmp_path}/index.sqlite"


@pytest.fixture
def registry(where: tuple[str, str]) -> Iterator[Registry]:
    with Registry(*where) as opened:
        yield opened


def test_a_changed_byte_is_refused_and_named(where: tuple[str, str], files: Callable[..., list[Path]]) -> None:
    [source] = files(net_pt="weights")
    with Registry(*where) as registry:
        registry.push("btag", [source])
        assert registry.verify() == []
        replace(registry._blobs.store, digest(source), b"weightz")  # noqa: F405
        assert digest(source) in "\n".join(map(str, registry.verify()))
        with pytest.raises(RegistryError, match=digest(source)[:12]):
            registry.get("btag@1", to=source.parent / "out")


def publish(where: tuple[str, str], folder: Path, me: int, count: int) -> list[int]:
    numbers = []
    with Registry(*where) as registry:
        for k in range(count):
            path = folder / f"{me}-{k}.bin"
            path.write_text(f"{me} {k}")
            numbers.append(registry.push("btag", [path]).number)
    return numbers


def publish_at_once(where: tuple[str, str], folder: Path, processes: int, each: int) -> None:
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        got = pool.starmap(publish, [(where, folder, me, each) for me in range(processes)])
    assert sorted(itertools.chain(*got)) == list(range(1, processes * each + 1))
    with Registry(*where) as registry:
        assert registry.verify() == []


def test_publishers_at_once(where: tuple[str, str], tmp_path: Path) -> None:
    publish_at_once(where, tmp_path, 3, 4)


@pytest.mark.heavy
def test_eight_publishers_of_fifty_on_a_database_nobody_made(urls: Callable[[str], str], tmp_path: Path) -> None:
    database = servers.new_database(urls("postgresql"), f"registry{next(fresh)}")
    publish_at_once((str(tmp_path / "registry"), database), tmp_path, 8, 50)
