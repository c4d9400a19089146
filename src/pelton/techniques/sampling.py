"""From logits to a token. One row a technique; see row.py."""

from __future__ import annotations

from .row import Paper, Technique

SAMPLING: tuple[Technique, ...] = (
    Technique(
        name="counter-based-sampling",
        family="sampling",
        title="Random numbers from seed, position and stream, so a sample never depends on the batch",
        papers=(Paper("Parallel Random Numbers: As Easy as 1, 2, 3"),),
        exact=True,
        switch="always on; --seed fixes the text",
        test="tests/decode/test_sampler.py::test_a_draw_depends_on_seed_position_and_stream_alone",
        benchmark="counter-based-sampling",
        source="pelton.decode.philox:uniform",
    ),
)
