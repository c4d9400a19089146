"""What the prefix cache tells of other tenants: nothing, in its counter or in time (reliability.md 36)."""

from __future__ import annotations

import http.client
import json
import random
import socket
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import exp, sqrt
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import pytest

from pelton.serve.http.keys import TenantKey

from ..serving import PATIENCE, Served, serving

ANN, BOB = TenantKey("ann", "key of ann"), TenantKey("bob", "key of bob")
PROMPT = 400
"""Tokens: cold 2.5 ms to the first token, 1.2 ms with all of them cached."""
EACH, REPEATS, MOST_ROUNDS = 250, 20, 4
LIKELY, MOST_LIKELY = 0.01, 1
CERTAIN = 1e-8


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path, max_num_seqs=4, kv_memory=64 << 20, tenant_keys=(ANN, BOB)) as served:
        yield served


class Client:
    """A tenant with one connection that stays open."""

    def __init__(self, served: Served, who: TenantKey) -> None:
        where = urlsplit(served.url)
        assert where.hostname is not None
        self._connection = http.client.HTTPConnection(where.hostname, where.port, timeout=PATIENCE)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {who.key}"}

    def ask(self, prompt: Sequence[int], salt: str | None = None) -> tuple[float, int]:
        """Seconds to the first event of a stream, and the prompt tokens that a cache had."""
        body = {"prompt": prompt, "max_tokens": 1, "stream": True, "cache_salt": salt}
        content = json.dumps({**body, "stream_options": {"include_usage": True}}).encode()
        began = perf_counter()
        self._connection.request("POST", "/v1/completions", content, self._headers)
        reply = self._connection.getresponse()
        reply.readline()
        took = perf_counter() - began
        assert reply.status == 200
        *_, last, done = (line for line in reply.read().splitlines() if line)
        assert done == b"data: [DONE]"
        usage = json.loads(last.removeprefix(b"data: "))["usage"]
        return took, int(usage["prompt_tokens_details"]["cached_tokens"])

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def clients(served: Served) -> Iterator[tuple[Client, Client]]:
    ann, bob = Client(served, ANN), Client(served, BOB)
    yield ann, bob
    ann.close()
    bob.close()


def prompts(source: random.Random, count: int) -> list[list[int]]:
    return [[source.randrange(20, 250) for _ in range(PROMPT)] for _ in range(count)]


def same_distribution(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p of Kolmogorov and Smirnov's test, as Stephens approximates it from 8 values on."""
    a, b = sorted(first), sorted(second)
    distance = max(abs(bisect_right(a, x) / len(a) - bisect_right(b, x) / len(b)) for x in (*a, *b))
    root = sqrt(len(a) * len(b) / (len(a) + len(b)))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # where the series converges slowly, to 1
        return 1.0
    return 2 * sum((-1.0) ** (k - 1) * exp(-2 * (k * scaled) ** 2) for k in range(1, 101))


def test_the_test_tells_what_is_different_and_seldom_more() -> None:
    source = random.Random(36)

    def p(shift: float) -> float:
        return same_distribution(
            [source.random() for _ in range(EACH)], [source.random() + shift for _ in range(EACH)]
        )

    ps = [p(0.0) for _ in range(400)]
    assert 0.4 < sum(ps) / len(ps) < 0.65
    assert 5 <= sum(p < 0.05 for p in ps) <= 35
    assert sum(p < LIKELY for p in ps) <= 12
    assert p(0.5) < CERTAIN
    assert p(2.0) < 1e-90


@pytest.mark.parametrize("salt", [None, "of one's own"])
def test_no_tenant_finds_what_another_asked(clients: tuple[Client, Client], salt: str | None) -> None:
    ann, bob = clients
    for prompt in prompts(random.Random(f"counted {salt}"), 5):
        assert [who.ask(prompt, salt)[1] for who in (ann, ann, bob, bob)] == [0, PROMPT - 1, 0, PROMPT - 1]


def test_no_salt_that_a_tenant_can_give_is_another_tenants(clients: tuple[Client, Client]) -> None:
    ann, bob = clients
    (prompt,) = prompts(random.Random("guessed"), 1)
    ann.ask(prompt, "s")
    for guess in ("", "s", "ann", "ann s", '["ann", "s"]', "anns"):
        assert bob.ask(prompt, guess)[1] == 0, guess


Times = tuple[list[float], list[float]]


def times(client: Client, cold: list[list[int]], warm: list[list[int]], source: random.Random) -> Times:
    """Of both, asked in a random order so that they share the machine's moods."""
    order = [*((0, prompt) for prompt in cold), *((1, prompt) for prompt in warm)]
    source.shuffle(order)
    found: Times = ([], [])
    for which, prompt in order:
        found[which].append(client.ask(prompt)[0])
    return found


@pytest.mark.load
def test_times_to_first_tokens_do_not_tell_what_another_tenant_asked(clients: tuple[Client, Client]) -> None:
    ann, bob = clients
    source = random.Random(36)

    def probed(victim: Client, rounds: int) -> Iterator[float]:
        """The p of `bob`'s times being the same for what the victim asked and nobody, after each round."""
        cold, warm = list[float](), list[float]()
        for _ in range(rounds):
            asked, unasked = prompts(source, EACH), prompts(source, EACH)
            for prompt in asked:
                victim.ask(prompt)
            more = times(bob, unasked, asked, source)
            cold += more[0]
            warm += more[1]
            yield same_distribution(cold, warm)

    bob.ask(prompts(source, 1)[0])  # a connection that has asked for nothing is closed after 10 s
    [*probed(ann, 1)]  # warm
    own = list[float]()
    for p in probed(bob, MOST_ROUNDS):  # as many as tell one's own on this machine, be it a noisy one
        own.append(p)
        if p < CERTAIN:
            break
    others = [[*probed(ann, len(own))][-1] for _ in range(REPEATS)]
    shown = " ".join(f"{p:.2f}" for p in sorted(others))
    print(f"\np within a tenant {own[-1]:.1e} after {len(own)} rounds; across tenants {shown}")
    assert own[-1] < CERTAIN
    assert sum(p < LIKELY for p in others) <= MOST_LIKELY
