"""What a node knows of the ways to its peers, in a time of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.paths import OVERLAY, UNDERLAY, Path
from podplane.probes.table import EACH_SECONDS, INTERVAL_SECONDS, RESTING_SECONDS, WINDOW, Plan, Row, State, Table, combined

PODS = Path("node2", OVERLAY, "10.244.2.1", "vxlan", "192.168.1.11")
PODS6 = Path("node2", OVERLAY, "fd00:10:244:2::1", "vxlan", "192.168.1.11")
BELOW = Path("node2", UNDERLAY, "192.168.1.11")
OTHER = Path("node3", OVERLAY, "10.244.3.1", "vxlan", "192.168.1.12")
STEP = 0.08
"""Seconds from one look of the poller to the next."""
Answers = Callable[[Path, float], bool]


class Net:
    """A table whose probes are answered, or not, `seconds` later."""

    def __init__(self, *paths: Path) -> None:
        self.table, self.now = Table(), 0.0
        self.table.set(dict.fromkeys(paths, Plan(0.0)), 0.0)
        self.answers: Answers = lambda path, now: True
        self.seconds = 0.001
        self.sent: list[tuple[float, Path]] = []
        self._on_their_way: list[tuple[float, int, str]] = []

    def run(self, seconds: float) -> None:
        """Look again and again for so long."""
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            for at, sequence, ip in [one for one in self._on_their_way if one[0] <= self.now]:
                self._on_their_way.remove((at, sequence, ip))
                self.table.answered(sequence, ip, self.seconds, self.now)
            for sequence, path in self.table.due(self.now) if self.now >= self.table.due_at else ():
                self.sent.append((self.now, path))
                if self.answers(path, self.now):
                    self._on_their_way.append((self.now + self.seconds, sequence, path.ip))

    def row(self, path: Path = PODS) -> Row:
        return next(row for row in self.table.rows if row.path == path)


def test_a_way_that_is_answered_is_reached_and_tried_every_few_seconds() -> None:
    net = Net(PODS, BELOW)
    net.run(200)
    assert net.row().state is State.REACHED and net.row().latency == pytest.approx(0.001) and net.row().loss == 0
    assert sum(path == PODS for _, path in net.sent) == pytest.approx(200 / INTERVAL_SECONDS, abs=2)
    assert sum(path == BELOW for _, path in net.sent) == pytest.approx(200 / RESTING_SECONDS, abs=2)
    assert net.table.waiting <= 2


def test_ip_versions_are_tried_in_turn_and_one_that_is_lost_is_known_to_be_within_ten_seconds() -> None:
    net = Net(PODS, PODS6, BELOW)
    net.run(70)
    times = [at for at, path in net.sent if path != BELOW]
    gaps = [after - before for before, after in itertools.pairwise(times)][2:]
    assert max(gaps) < EACH_SECONDS / 2 + 2 * STEP and len(times) == pytest.approx(70 / EACH_SECONDS * 2, abs=3)
    for before in range(12):
        net = Net(PODS, PODS6, BELOW)
        net.run(30 + before)
        net.answers = lambda path, now: path != PODS6
        net.run(10)
        assert net.row(PODS6).state is State.LOST and net.row(PODS).state is State.REACHED


def test_a_peer_that_is_lost_is_known_to_be_within_eight_seconds_and_so_is_what_is_below() -> None:
    for before in (20.0, 21.3, 22.6, 23.9, 25.1):
        net = Net(PODS, BELOW)
        net.run(before)
        net.answers = lambda path, now: path == BELOW
        net.run(8.2)
        assert net.row().state is State.LOST and net.table.pods_of("node2") is State.LOST
        assert net.table.below(net.row()) is State.REACHED
        net = Net(PODS, BELOW)
        net.run(before)
        net.answers = lambda path, now: False
        net.run(10)
        assert net.row().state is net.table.below(net.row()) is State.LOST


def test_three_answers_in_a_row_make_a_lost_way_reached_within_three_seconds() -> None:
    net = Net(PODS)
    net.answers = lambda path, now: False
    net.run(10)
    assert net.row().state is State.LOST and net.row().latency is None
    net.answers = lambda path, now: True
    net.run(3)
    assert net.row().state is State.REACHED and net.row().loss == 0


def test_some_loss_changes_nothing_but_the_figure() -> None:
    net = Net(PODS)
    net.run(5)
    count = 0

    def every_third(path: Path, now: float) -> bool:
        nonlocal count
        count += 1
        return count % 3 != 0

    net.answers = every_third
    changes = net.table.changes
    net.run(300)
    assert net.row().state is State.REACHED and net.table.changes == changes
    assert net.row().loss == pytest.approx(1 / 3, abs=0.05) and net.row().sent == WINDOW


def test_what_is_hastened_is_judged_within_a_second() -> None:
    for before in (4.0, 5.0, 6.1, 7.2, 7.9):
        net = Net(PODS, PODS6)
        net.run(before)
        net.answers = lambda path, now: False
        net.table.hasten("node2", net.now)
        net.run(0.8)
        assert net.table.pods_of("node2") is State.LOST
    net = Net(PODS, PODS6)
    net.table.hasten("node2", 0.0)
    net.answers = lambda path, now: False
    net.run(0.8)
    assert net.table.pods_of("node2") is State.LOST and not net.table.has_answered("node2")


def test_an_answer_that_comes_late_is_an_answer() -> None:
    net = Net(PODS)
    net.run(4)
    net.seconds = 0.6  # more than the timeout of one in haste, and of one that lost a packet
    net.table.hasten("node2", net.now)
    net.run(100)
    assert net.row().state is State.REACHED and 0.5 < (net.row().latency or 0) < 0.7 and net.row().loss == 0


@pytest.mark.parametrize("seconds", [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.5])
def test_a_long_way_is_never_lost_for_its_length_alone(seconds: float) -> None:
    net = Net(PODS, PODS6)
    net.seconds = seconds
    net.run(60)
    changes = net.table.changes
    net.table.hasten("node2", net.now)
    for _ in range(60):
        net.run(1)
        assert net.row().state is net.row(PODS6).state is State.REACHED and net.table.changes == changes
    assert net.row().loss == 0 and not net.table.is_hasty


@pytest.mark.parametrize("seconds", [0.2, 0.4, 0.5, 0.7, 1.5])
def test_one_lost_packet_of_a_long_way_is_one_and_soon_over(seconds: float) -> None:
    net = Net(PODS, BELOW)
    net.seconds = seconds
    net.run(60)
    to_lose = [PODS]
    net.answers = lambda path, now: not (path in to_lose and to_lose.remove(path) is None)
    net.run(15)
    before = len(net.sent)
    net.run(120)
    assert not to_lose and net.row().lost.bit_count() == 1
    assert len(net.sent) - before == pytest.approx(120 / INTERVAL_SECONDS + 120 / RESTING_SECONDS, abs=2)


def test_a_first_answer_that_waited_for_a_neighbour_makes_no_way_long() -> None:
    net = Net(PODS)
    net.seconds = 0.7
    net.run(3)
    net.seconds = 0.001
    net.run(20)
    net.answers = lambda path, now: False
    net.table.hasten("node2", net.now)
    net.run(0.8)
    assert net.row().state is State.LOST


def test_only_the_address_that_was_asked_may_answer_and_once() -> None:
    table = Table()
    table.set({PODS: Plan(0.0)}, 0.0)
    ((sequence, _),) = table.due(0.0)
    assert not table.answered(sequence, "10.244.2.9", 0.001, 0.1)
    assert not table.answered(sequence + 1, PODS.ip, 0.001, 0.1)
    assert table.answered(sequence, PODS.ip, 0.001, 0.1)
    assert not table.answered(sequence, PODS.ip, 0.001, 0.1)


def test_ways_that_go_are_forgotten_and_what_they_are_answered_is_nobodys() -> None:
    table = Table()
    table.set({PODS: Plan(0.0), OTHER: Plan(0.0)}, 0.0)
    sent = dict(table.due(0.0))
    table.set({OTHER: Plan(0.0)}, 0.1)
    assert table.waiting == 1 and [row.path for row in table.rows] == [OTHER]
    for sequence, path in sent.items():
        assert table.answered(sequence, path.ip, 0.001, 0.2) == (path == OTHER)
    table.set({OTHER: Plan(0.3), PODS: Plan(0.3)}, 0.3)
    assert {row.path: row.state for row in table.rows} == {OTHER: State.REACHED, PODS: State.UNKNOWN}


def test_one_ip_version_is_enough_to_be_reached_and_all_ways_are_lost_together() -> None:
    assert combined([]) is combined([State.LOST, State.UNKNOWN]) is State.UNKNOWN
    assert combined([State.LOST, State.REACHED]) is State.REACHED
    assert combined([State.LOST, State.LOST]) is State.LOST


@given(st.lists(st.tuples(st.sampled_from(["due", "answer", "late", "set", "hasten"]), st.floats(0, 3)), max_size=80))
def test_it_counts_what_is_on_its_way_whatever_happens(steps: list[tuple[str, float]]) -> None:
    table, now = Table(), 0.0
    sent: list[tuple[int, Path]] = []
    for step, seconds in steps:
        now += seconds
        match step:
            case "due":
                sent += table.due(now)
            case "answer" if sent:
                sequence, path = sent.pop()
                table.answered(sequence, path.ip, seconds, now)
            case "late" if sent:
                sequence, path = sent.pop(0)
                table.answered(sequence, path.ip, seconds, now)
            case "hasten":
                table.hasten("node2", now)
            case "set":
                table.set(dict.fromkeys([PODS, BELOW, OTHER][: int(seconds) + 1], Plan(now)), now)
        assert table.waiting == sum(row.sequence >= 0 for row in table.rows)
        assert all(0 <= row.loss <= 1 and row.sent <= WINDOW for row in table.rows)
        assert all(row.due_at >= table.due_at for row in table.rows) or step == "answer"
