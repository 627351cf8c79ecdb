from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.files.directory_lock import DirectoryLock, lock_directory
from gateway.files.faults import InUseError


def test_one_by_itself_locks_all_others_out(tmp_path: Path) -> None:
    lock = lock_directory(tmp_path)
    lock.share()  # with nobody
    for group in ("", "others"):
        with pytest.raises(InUseError):
            lock_directory(tmp_path, group)
    lock.release()
    lock_directory(tmp_path, "others").release()


def test_a_group_shares_and_only_the_first_puts_things_in_order(tmp_path: Path) -> None:
    first = lock_directory(tmp_path, "ours")
    assert first.alone
    first.share()
    second = lock_directory(tmp_path, "ours")
    assert not second.alone
    for group in ("", "theirs"):
        with pytest.raises(InUseError):
            lock_directory(tmp_path, group)
    first.release()
    third = lock_directory(tmp_path, "ours")
    assert not third.alone
    second.release()
    third.release()
    assert lock_directory(tmp_path, "theirs").alone


def test_of_many_that_come_at_once_all_get_in_and_one_at_a_time_is_alone(tmp_path: Path) -> None:
    alone: list[int] = []

    def come(number: int) -> DirectoryLock:
        lock = lock_directory(tmp_path, "ours")
        if lock.alone:
            alone.append(number)
            assert len(alone) == 1
            alone.remove(number)
        lock.share()
        return lock

    with ThreadPoolExecutor(8) as pool:
        locks = list(pool.map(come, range(40)))
    for lock in locks:
        lock.release()
