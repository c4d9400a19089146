"""Stop strings, found while text streams.

The automaton is Aho and Corasick's ("Efficient string matching: an aid to bibliographic
search", 1975): one state a prefix of a stop string, so each character is looked at a
constant number of times on average however many stops there are.
"""

from __future__ import annotations

from collections import deque

from pelton.errors import RequestError

MAX_STOPS = 256
MAX_STOP_CHARACTERS = 65536  # of all stops together


class _Automaton:
    """States are prefixes: `next_of[s]` the transitions, `fail[s]` the longest suffix that is a prefix too,
    `depth[s]` its length, `found[s]` the longest stop that ends here."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.next_of: list[dict[str, int]] = [{}]
        self.fail = [0]
        self.depth = [0]
        self.found: list[str | None] = [None]
        for stop in stops:
            self._insert(stop)
        self._link()

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self.next_of[state].get(character)
            if following is None:
                following = len(self.next_of)
                self.next_of[state][character] = following
                self.next_of.append({})
                self.fail.append(0)
                self.depth.append(self.depth[state] + 1)
                self.found.append(None)
            state = following
        self.found[state] = stop

    def _link(self) -> None:
        waiting = deque(self.next_of[0].values())
        while waiting:
            state = waiting.popleft()
            for character, following in self.next_of[state].items():
                waiting.append(following)
                self.fail[following] = self.step(self.fail[state], character)
            if self.found[state] is None:
                self.found[state] = self.found[self.fail[state]]

    def step(self, state: int, character: str) -> int:
        while state and character not in self.next_of[state]:
            state = self.fail[state]
        return self.next_of[state].get(character, 0)


class StopMatcher:
    """Passes text through until a stop string is complete, holding back only what could begin one.

    The stop that is complete first wins; of several complete at the same character, the longest.
    `include` says whether the stop itself belongs to the text. After a match, `feed` returns nothing.
    RequestError for an empty stop or too many.
    """

    def __init__(self, stop: tuple[str, ...], include: bool = False) -> None:
        if any(not text for text in stop):
            raise RequestError("a stop string cannot be empty", field="stop", value=stop)
        if len(stop) > MAX_STOPS or sum(map(len, stop)) > MAX_STOP_CHARACTERS:
            raise RequestError(
                f"at most {MAX_STOPS} stop strings with {MAX_STOP_CHARACTERS} characters together",
                field="stop",
                value=len(stop),
            )
        self._automaton = _Automaton(stop)
        self._include = include
        self._state = 0
        self._held = ""  # always the automaton's state as text
        self.matched: str | None = None

    def feed(self, text: str) -> tuple[str, str | None]:
        """The text that may be shown now, and the stop string when this completed one."""
        if self.matched is not None:
            return "", self.matched
        automaton, state = self._automaton, self._state
        text = self._held + text
        for index in range(len(self._held), len(text)):
            state = automaton.step(state, text[index])
            found = automaton.found[state]
            if found is not None:
                self.matched, self._held = found, ""
                end = index + 1
                return text[: end if self._include else end - len(found)], found
        self._state = state
        safe = len(text) - automaton.depth[state]
        self._held = text[safe:]
        return text[:safe], None

    def finish(self) -> str:
        """The text held back, now that nothing follows it."""
        held, self._held, self._state = self._held, "", 0
        return held

    def fork(self) -> StopMatcher:
        """An independent copy that continues from here."""
        copy = StopMatcher((), self._include)
        copy._automaton = self._automaton
        copy._state, copy._held, copy.matched = self._state, self._held, self.matched
        return copy
