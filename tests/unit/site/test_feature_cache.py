import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from med_duallora.errors import ConfigError
from med_duallora.site import feature_cache as cache_module
from med_duallora.site.feature_cache import ABANDONED_AFTER_S, FeatureCache
from med_duallora.support.tensors import read_tensors

KEY = "ab" + "0" * 62
SECRET = bytes(range(32))


def key_of(number: int) -> str:
    return f"{number:064x}"


def entry(n: int = 64, value: float = 1.0) -> dict[str, torch.Tensor]:
    """About 8 n bytes."""
    return {"tokens": torch.full((n,), value), "fusion_term": torch.full((n,), -value)}


def files_of(cache: FeatureCache) -> list[Path]:
    return sorted(path for path in cache.directory.rglob("*") if path.is_file())


def flip(path: Path, position: int) -> None:
    """Change one bit, as a failing disk does."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", 2**20, SECRET)


def test_what_is_stored_comes_back(cache):
    assert cache.load(KEY) is None
    cache.store(KEY, entry())
    found = FeatureCache(cache.directory, 2**20, SECRET).load(KEY)
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in entry().items()}
    cache.load(KEY)
    assert (cache.n_hits, cache.n_misses) == (1, 1)
    assert [path.stat().st_mode & 0o777 for path in files_of(cache)] == [0o600], "features are derived from patients"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-5]), "cut off"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(b"\x00" * 400), "zeros, as after a power failure"),
        (lambda p: p.write_bytes(b"\xff" * 400), "a header of absurd length"),
        (lambda p: flip(p, -1), "the last byte is another one"),
        (lambda p: flip(p, -300), "so is one in the middle"),
        (lambda p: save_file(entry(), p), "of an older version, without a checksum"),
    ],
)
def test_a_damaged_entry_is_a_miss_and_is_replaced(cache, damage, reason):
    cache.store(KEY, entry())
    (path,) = files_of(cache)
    damage(path)
    assert cache.load(KEY) is None, reason
    assert files_of(cache) == [], "it is removed"
    cache.store(KEY, entry(value=2))
    assert cache.load(KEY)["tokens"][0] == 2


def test_the_least_recently_used_entries_go_first(tmp_path):
    n_bytes = 8 * 1024
    cache = FeatureCache(tmp_path, 5 * (n_bytes + cache_module.HEADER_BYTES), SECRET)
    for number in range(4):
        cache.store(key_of(number), entry(1024))
        os.utime(cache._path(key_of(number)), (number, number))
    cache.load(key_of(0))
    cache.store(key_of(4), entry(1024))
    assert len(files_of(cache)) == 5, "five fit"
    cache.store(key_of(5), entry(1024))
    held = [number for number in range(6) if cache._path(key_of(number)).exists()]
    assert held == [0, 3, 4, 5], "1 and 2 were used longest ago; 0 was written first, but read since"


def test_the_directory_stays_below_its_budget(tmp_path):
    rng = np.random.default_rng(0)
    budget = 100_000
    cache = FeatureCache(tmp_path, budget, SECRET)
    for number in range(60):
        cache.store(key_of(number), entry(int(rng.integers(1, 2000))))
        assert sum(path.stat().st_size for path in files_of(cache)) <= budget
        assert cache._path(key_of(number)).exists(), "the newest entry is never the one that goes"
    assert len(files_of(cache)) > 5


def test_a_new_entry_stays_also_when_the_others_look_newer(tmp_path):
    cache = FeatureCache(tmp_path, 40_000, SECRET)
    for number in range(4):
        cache.store(key_of(number), entry(1024))
        os.utime(cache._path(key_of(number)), (2**32, 2**32))  # written by a machine whose clock is ahead
    cache.store(key_of(4), entry(1024))
    assert cache._path(key_of(4)).exists()
    assert len(files_of(cache)) == 4


def test_an_entry_as_large_as_the_budget_is_not_stored(tmp_path):
    cache = FeatureCache(tmp_path, 10_000, SECRET)
    cache.store(key_of(0), entry(100))
    cache.store(key_of(1), entry(1250))
    assert cache.load(key_of(1)) is None, "its numbers alone are the budget, its header exceeds it"
    assert cache.load(key_of(0)) is not None, "and it has thrown out nothing"


def test_what_other_processes_write_counts(tmp_path):
    budget = 256 * 1024
    mine, theirs = FeatureCache(tmp_path, budget, SECRET), FeatureCache(tmp_path, budget, SECRET)
    for number in range(0, 100, 2):
        mine.store(key_of(number), entry(1024))
        theirs.store(key_of(number + 1), entry(1024))
        assert sum(path.stat().st_size for path in files_of(mine)) <= budget * (1 + 2 / 64)
    assert len(files_of(mine)) > 10


def test_a_reopened_cache_knows_its_size(tmp_path):
    FeatureCache(tmp_path, 2**20, SECRET).store(key_of(0), entry(10_000))
    FeatureCache(tmp_path, 90_000, SECRET).store(key_of(1), entry(5000))
    assert [path.stem for path in files_of(FeatureCache(tmp_path, 90_000, SECRET))] == [key_of(1)]


def test_an_entry_that_is_evicted_while_it_is_read_does_not_come_back_empty(cache, monkeypatch):
    cache.store(KEY, entry())

    def evicted_after(stream, framework):
        found = read_tensors(stream, framework)
        cache._path(KEY).unlink()
        return found

    monkeypatch.setattr(cache_module, "read_tensors", evicted_after)
    assert torch.equal(cache.load(KEY)["tokens"], entry()["tokens"])
    assert files_of(cache) == []


# ---- writers that are interrupted or at work at the same time

INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from med_duallora.support.files import atomic_path
with atomic_path(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half of an entry")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_leaves_is_ignored_and_removed_when_old(cache):
    target = cache._path(KEY)
    assert subprocess.run([sys.executable, "-c", INTERRUPTED, str(target)], check=False).returncode == -9
    (left,) = files_of(cache)
    assert left.name.startswith(".partial-")
    assert cache.load(KEY) is None
    cache.store(KEY, entry())
    assert cache.load(KEY) is not None
    assert left in files_of(FeatureCache(cache.directory, 2**20, SECRET)), "a young one may belong to a writer at work"
    old = time.time() - ABANDONED_AFTER_S - 1
    os.utime(left, (old, old))
    os.utime(target, (old, old))
    assert files_of(FeatureCache(cache.directory, 2**20, SECRET)) == [target], "entries are not touched, however old"


def test_trimming_does_not_take_a_writers_unfinished_file(tmp_path):
    cache = FeatureCache(tmp_path, 40_000, SECRET)
    cache.store(key_of(0), entry(1024))
    unfinished = cache._path(key_of(0)).with_name(f".partial-x-{key_of(1)}.safetensors")
    unfinished.write_bytes(b"0" * 9000)
    os.utime(unfinished, (time.time() - 60,) * 2)
    for number in range(2, 8):
        cache.store(key_of(number), entry(1024))
    assert unfinished.exists()
    assert len(files_of(cache)) > 3


FULL = (OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device"))


@pytest.mark.parametrize("error", FULL, ids=["python's", "safetensors'"])
def test_a_full_disk_is_said_once_and_leaves_nothing(cache, monkeypatch, caplog, error):
    def broken(tensors, path, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(cache_module, "save_file", broken)
    for number in range(3):
        cache.store(key_of(number), entry())
    assert files_of(cache) == []
    assert caplog.text.count("the feature cache cannot be written") == 1
    assert "No space left on device" in caplog.text
    monkeypatch.undo()
    cache.store(KEY, entry())
    assert cache.load(KEY) is not None, "when there is room again, it goes on"


def test_a_write_that_the_kernel_refuses_is_no_error(cache, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # as a full disk, with an error of its own
    try:
        cache.store(KEY, entry(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the feature cache cannot be written" in caplog.text
    assert str(cache.directory) not in caplog.text, "logs can be read elsewhere: no paths"
    assert cache.load(KEY) is None


def test_a_directory_on_a_full_disk_is_a_cache_without_entries(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        opened = FeatureCache(tmp_path / "cache", 2**20, SECRET)
        opened.store(KEY, entry())
        assert opened.load(KEY) is None
    assert caplog.text.count("the feature cache cannot be written") == 1


def test_a_directory_that_can_never_be_made_is_a_wrong_setting(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cache_dir .*file/cache cannot be used: Not a directory"):
        FeatureCache(tmp_path / "file" / "cache", 2**20, SECRET)


WRITER = """
import sys
from pathlib import Path
import torch
from med_duallora.site.feature_cache import FeatureCache
cache = FeatureCache(Path(sys.argv[1]), 2**26, bytes(range(32)))
tensors = {"tokens": torch.arange(50_000.0), "fusion_term": torch.ones(1000)}
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    cache.store(sys.argv[2], tensors)
    found = cache.load(sys.argv[2])
    assert found is not None and torch.equal(found["tokens"], tensors["tokens"])
print(cache.n_misses)
"""


def test_two_processes_may_write_and_read_the_same_key_at_once(cache):
    command = [sys.executable, "-c", WRITER, str(cache.directory), KEY]
    writers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        found = cache.load(KEY)
        assert found is None or torch.equal(found["tokens"], torch.arange(50_000.0)), "never half an entry"
    outputs = [writer.communicate() for writer in writers]
    assert [(out, error) for out, error in outputs] == [("0\n", "")] * 2
    assert [path.name for path in files_of(cache)] == [f"{KEY}.safetensors"]


# ---- the seal


def seals_of(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that the key of every computed seal is added to."""
    computed: list[str] = []
    plain = FeatureCache._seal
    monkeypatch.setattr(FeatureCache, "_seal", lambda self, key, value: computed.append(key) or plain(self, key, value))
    return computed


def test_a_seal_is_computed_once_per_file(cache, monkeypatch):
    cache.store(KEY, entry())
    computed = seals_of(cache, monkeypatch)
    for _ in range(3):
        assert cache.load(KEY) is not None
    assert computed == [KEY]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p, _: os.utime(p, (5, 5)), "written or touched by another process"),
        (lambda p, other: other.replace(p), "another file of the site in its place"),
    ],
)
def test_a_file_that_may_be_another_one_is_looked_at_again(cache, monkeypatch, change, reason):
    for key in (KEY, key_of(1)):
        cache.store(key, entry())
        cache.load(key)
    computed = seals_of(cache, monkeypatch)
    change(cache._path(KEY), cache._path(key_of(1)))
    found = cache.load(KEY)
    assert computed == [KEY], reason
    assert (found is None) == ("another file" in reason), "the seal is of the name as well"


def test_a_flipped_byte_of_a_known_file_is_found_by_its_checksum(cache):
    cache.store(KEY, entry())
    cache.load(KEY)
    path = cache._path(KEY)
    status = path.stat()
    flip(path, -1)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.load(KEY) is None


def test_a_file_that_others_can_write_is_not_taken(cache):
    cache.store(KEY, entry())
    cache._path(KEY).chmod(0o666)
    assert cache.load(KEY) is None


def test_another_secret_takes_nothing(cache):
    cache.store(KEY, entry())
    assert FeatureCache(cache.directory, 2**20, bytes(32)).load(KEY) is None


@pytest.mark.parametrize("known", [False, True])
def test_an_entry_of_another_shape_or_kind_is_not_taken(cache, known):
    cache.store(KEY, {"tokens": torch.ones(4)})
    path = files_of(cache)[0]
    facts, _ = read_tensors(path.open("rb"), "pt")
    status = path.stat()
    if known:
        assert cache.load(KEY) is not None
        status = path.stat()
    for planted in (torch.tensor(1.0), torch.ones(4).view(torch.int32), torch.ones(2, 2)):
        path.unlink(missing_ok=True)
        save_file({"tokens": planted}, path, metadata=facts)
        path.chmod(0o600)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        if known:
            cache._known[KEY] = cache_module._identity(path.stat())
        assert cache.load(KEY) is None
