from __future__ import annotations

import os
import threading
from collections.abc import Hashable

import pytest

from parallel._warm import WarmPools


class Pool:
    def __init__(self, name: str) -> None:
        self.name = name
        self.is_usable = True

    def __repr__(self) -> str:
        return self.name


class Shop:
    """Warm pools, and a log of what was made and closed."""

    def __init__(self, max_idle: int = 1) -> None:
        self.log: list[str] = []
        self.pools: WarmPools[Pool] = WarmPools(
            close=lambda pool: self.log.append(f"close {pool}"),
            is_usable=lambda pool: pool.is_usable,
            max_idle=max_idle,
            close_at_exit=False,
        )

    def lend(self, key: Hashable) -> Pool:
        def make() -> Pool:
            self.log.append(f"make {key}")
            return Pool(f"{key}{len(self.log)}")

        return self.pools.lend(key, make)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_the_first_call_makes_a_pool(shop: Shop) -> None:
    shop.lend("a")
    assert shop.log == ["make a"]


def test_a_pool_that_was_given_back_is_lent_again(shop: Shop) -> None:
    pool = shop.lend("a")
    shop.pools.give_back("a", pool)
    assert shop.lend("a") is pool
    assert shop.log == ["make a"]


def test_a_pool_is_lent_to_one_at_a_time(shop: Shop) -> None:
    assert shop.lend("a") is not shop.lend("a")


def test_a_pool_is_lent_to_whichever_thread_comes_next(shop: Shop) -> None:
    pool = shop.lend("a")
    shop.pools.give_back("a", pool)
    lent: list[Pool] = []
    thread = threading.Thread(target=lambda: lent.append(shop.lend("a")))
    thread.start()
    thread.join()
    assert lent == [pool]


def test_an_idle_pool_serves_its_own_key_only(shop: Shop) -> None:
    pool = shop.lend("a")
    shop.pools.give_back("a", pool)
    assert shop.lend("b") is not pool


def test_a_pool_that_broke_while_it_was_idle_is_closed_and_replaced(shop: Shop) -> None:
    pool = shop.lend("a")
    shop.pools.give_back("a", pool)
    pool.is_usable = False
    assert shop.lend("a") is not pool
    assert f"close {pool}" in shop.log


def test_idle_pools_of_several_keys_stay_warm_up_to_the_limit() -> None:
    shop = Shop(max_idle=2)
    pools = {key: shop.lend(key) for key in "abc"}
    for key, pool in pools.items():
        shop.pools.give_back(key, pool)
    assert shop.log[3:] == [f"close {pools['a']}"]
    assert shop.lend("b") is pools["b"]
    assert shop.lend("c") is pools["c"]


def test_of_too_many_idle_pools_the_oldest_are_closed(shop: Shop) -> None:
    first, second = shop.lend("a"), shop.lend("a")
    shop.pools.give_back("a", first)
    shop.pools.give_back("a", second)
    assert shop.log[-1] == f"close {first}"
    assert shop.lend("a") is second


def test_more_idle_pools_may_be_kept() -> None:
    shop = Shop(max_idle=2)
    pools = [shop.lend("a"), shop.lend("a")]
    for pool in pools:
        shop.pools.give_back("a", pool)
    assert [shop.lend("a"), shop.lend("a")] == pools


def test_all_idle_pools_can_be_closed_and_those_in_use_are_not(shop: Shop) -> None:
    idle, used = shop.lend("a"), shop.lend("a")
    shop.pools.give_back("a", idle)
    shop.pools.close_idle()
    shop.pools.close_idle()
    assert shop.log[2:] == [f"close {idle}"]
    shop.pools.give_back("a", used)
    assert shop.lend("a") is used


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no fork here")
def test_a_forked_child_has_no_idle_pools_and_closes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = []
    monkeypatch.setattr(os, "register_at_fork", lambda *, after_in_child: hooks.append(after_in_child))
    shop = Shop()
    pool = shop.lend("a")
    shop.pools.give_back("a", pool)
    for hook in hooks:
        hook()  # what a child runs
    assert shop.lend("a") is not pool
    assert shop.log == ["make a", "make a"]
