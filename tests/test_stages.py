"""Stages: order kept, memory bounded, one error stops all, nothing waits for ever."""

import signal
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attpc_filter.stages import Stages, Stopped


@settings(max_examples=20, deadline=None)
@given(items=st.lists(st.integers(), max_size=50), bound=st.integers(1, 4))
def test_items_come_out_in_their_order(items: list[int], bound: int) -> None:
    with Stages() as stages:
        first, second = stages.channel(bound, int), stages.channel(bound, int)

        def produce() -> None:
            for item in items:
                first.put(item)
            first.end()

        def double() -> None:
            for item in first:
                second.put(2 * item)
            second.end()

        stages.start("produce", produce)
        stages.start("double", double)
        assert list(second) == [2 * item for item in items]


def test_a_channel_holds_no_more_than_its_bound() -> None:
    made: list[int] = []
    with Stages() as stages:
        channel = stages.channel(3, int)

        def produce() -> None:
            for item in range(100):
                channel.put(item)
                made.append(item)
            channel.end()

        stages.start("produce", produce)
        time.sleep(0.3)
        assert len(made) == 3
        assert list(channel) == list(range(100))


@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_error_in_any_stage_stops_all_and_is_raised(where: int) -> None:
    """The others wait for their neighbours when it happens."""

    def run() -> None:
        with Stages() as stages:
            channels = [stages.channel(1, int) for _ in range(4)]

            def work(index: int) -> None:
                for count, item in enumerate(channels[index]):
                    if index == where and count == 5:
                        raise ZeroDivisionError(index)
                    channels[index + 1].put(item)

            def feed() -> None:
                while True:
                    channels[0].put(1)

            stages.start("feed", feed)
            for index in range(3):
                stages.start(f"work {index}", lambda index=index: work(index))  # type: ignore[misc]
            for _ in channels[3]:
                pass

    before = threading.active_count()
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError, match=str(where)):
        run()
    assert time.monotonic() - started < 5
    assert threading.active_count() == before, "a thread was left behind"


def test_an_error_in_the_calling_thread_stops_the_stages() -> None:
    before = threading.active_count()

    def run() -> None:
        with Stages() as stages:
            channel = stages.channel(1, int)

            def feed() -> None:
                while True:
                    channel.put(1)

            stages.start("feed", feed)
            for _ in channel:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert threading.active_count() == before


def test_an_error_after_the_last_item_is_raised_too() -> None:
    def run() -> None:
        with Stages() as stages:
            channel = stages.channel(1, int)

            def produce() -> None:
                channel.end()
                raise ZeroDivisionError

            stages.start("produce", produce)
            list(channel)

    with pytest.raises(ZeroDivisionError):
        run()


def test_taking_from_a_channel_that_has_ended() -> None:
    with Stages() as stages:
        channel = stages.channel(2, int)
        channel.end()
        with pytest.raises(Stopped):
            channel.get()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_an_object_is_taken_down_is_not_lost(number: signal.Signals) -> None:
    """Python drops the exception of a handler that is called there."""

    class Mortal:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def run() -> None:
        with Stages() as stages:
            channel = stages.channel(1, int)

            def feed() -> None:
                while True:
                    channel.put(1)

            stages.start("feed", feed)
            for count, _ in enumerate(channel):
                assert count < 100, "went on as if nothing had happened"
                if count == 3:
                    Mortal()

    lost = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda lost_one: lost.append(lost_one.exc_type)
    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run()
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
        sys.unraisablehook = hook
    assert lost == []
