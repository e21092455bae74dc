"""Reading ahead and writing behind: in order, one item away, with the errors in their places."""

from __future__ import annotations

import threading

import pytest

from unet.segmentation.beside_passes import ahead, behind, following

# Seconds after which a thread that should have come has not.
LONG = 600


def test_the_next_item_is_taken_while_the_last_one_is_in_use():
    taken = [threading.Event() for _ in range(4)]

    def items():
        for number, event in enumerate(taken):
            event.set()
            yield number

    for number in ahead(items()):
        assert taken[min(number + 1, 3)].wait(LONG)
        # Not more: each may be as large as the memory.
        assert not any(event.is_set() for event in taken[number + 2 :])


def test_items_are_taken_by_another_thread_and_come_in_order():
    threads = list(ahead(threading.get_ident() for _ in range(3)))
    assert threading.get_ident() not in threads
    assert list(ahead(range(100))) == list(range(100))
    assert list(ahead([])) == []


def test_an_error_comes_in_the_place_of_the_item_that_could_not_be_taken():
    def items():
        yield "a"
        yield "b"
        raise OSError("slice 2 is broken")

    seen = []
    with pytest.raises(OSError, match="slice 2 is broken"):
        for item in ahead(items()):
            seen.append(item)
    assert seen == ["a", "b"]


def test_who_stops_early_leaves_no_thread():
    before = threading.active_count()
    coming = ahead(range(100))
    next(coming)
    coming.close()
    assert threading.active_count() == before


def test_calls_are_made_behind_in_their_order():
    started, may_end, done = threading.Event(), threading.Event(), []

    def write(numbers):
        started.set()
        assert may_end.wait(LONG)
        done.extend(numbers)

    with behind(write) as put:
        put(0)
        assert started.wait(LONG)
        assert done == []
        may_end.set()
        for number in range(1, 50):
            put(number)
    assert done == list(range(50))


@pytest.mark.parametrize("late", [1, 4])
def test_items_that_wait_are_given_together_and_no_more_than_are_allowed(late):
    begun, may_end, given = threading.Event(), threading.Event(), []

    def write(numbers):
        given.append(numbers)
        begun.set()
        assert may_end.wait(LONG)

    with behind(write, late) as put:
        put(0)
        assert begun.wait(LONG)
        for number in range(1, late):
            put(number)
        may_end.set()
        for number in range(late, 100):
            put(number)
    assert [number for numbers in given for number in numbers] == list(range(100))
    # All that waited for the first one.
    assert given[:1] == [[0]] and given[1][: late - 1] == list(range(1, late))
    # With the one that is being given.
    assert max(map(len, given)) <= late + 1


def test_as_many_calls_wait_as_is_asked_for():
    may_end, done = threading.Event(), []

    def write(numbers):
        assert may_end.wait(LONG)
        done.extend(numbers)

    with behind(write, 3) as put:
        for number in range(3):
            put(number)
        assert done == []
        may_end.set()
        put(3)
        assert done
    assert done == [0, 1, 2, 3]


def test_calls_that_wait_behind_an_error_are_not_made():
    begun, may_end, done = threading.Event(), threading.Event(), []

    def write(numbers):
        begun.set()
        assert may_end.wait(LONG)
        done.append(numbers)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), behind(write, 8) as put:
        put(0)
        assert begun.wait(LONG)
        for number in range(1, 5):
            put(number)
        may_end.set()
    assert done == [[0]]


def test_a_function_is_computed_while_the_next_items_are_taken():
    taken, computed = [threading.Event() for _ in range(4)], []

    def items():
        for number, event in enumerate(taken):
            event.set()
            yield number

    def function(number):
        # The next item is taken before this one is done.
        assert taken[min(number + 1, 3)].wait(LONG)
        computed.append(threading.get_ident())
        return 10 * number

    assert list(following(function, items(), 1)) == [0, 10, 20, 30]
    assert threading.get_ident() not in computed


def test_what_was_computed_before_an_error_comes_before_it():
    def items():
        yield 1
        yield 2
        raise OSError("slice 2 is broken")

    seen = []
    with pytest.raises(OSError, match="slice 2 is broken"):
        for item in following(str, items(), 8):
            seen.append(item)
    assert seen == ["1", "2"]
    seen = []
    with pytest.raises(ZeroDivisionError):
        for item in following(lambda number: 1 / number, iter([2, 4, 0, 8]), 3):
            seen.append(item)
    assert seen == [0.5, 0.25]


def test_after_an_error_nothing_more_is_written():
    done = []

    def write(numbers):
        if 1 in numbers:
            raise OSError("no space left")
        done.extend(numbers)

    with pytest.raises(OSError, match="no space left"), behind(write) as put:
        for number in range(5):
            put(number)
    assert done == [0]


def test_the_error_of_the_last_call_is_raised():
    def write(number):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), behind(write) as put:
        put(0)


def test_an_error_between_the_calls_waits_for_the_one_under_way():
    done = []
    with pytest.raises(KeyError), behind(done.extend) as put:
        put(0)
        raise KeyError
    assert done == [0]
