"""What models write when they call, rightly and wrongly: outputs of each dialect, and mutations of them."""

from __future__ import annotations

import random

OUTPUTS = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    'I look.\n<tool_call>\n{"name": "f", "arguments": {"x": [1, {"y": "}"}]}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_weather", "arguments": {}}\n</tool_call>\nDone.',
    '{"name": "get_weather", "parameters": {"city": "K\\u00f6ln \\"x\\"", "days": -1.5e3}}',
    '<|python_tag|>{"name": "f", "parameters": {"a": null}}; {"name": "f", "parameters": {"a": true}}',
    '[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}, '
    '{"name": "get_weather", "arguments": {"city": "a]b"}}]',
    'Sure: [TOOL_CALLS]get_weather{"city": "Paris"}[TOOL_CALLS]f[CALL_ID]abc123xyz[ARGS]{"x": "\U0001f600"}',
    "A plain answer with < and { and [ in it, and nothing more.",
    '```json\n{"name": "unknown", "parameters": {}}\n```',
    '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>',
)
_PIECES = (
    *(
        "<tool_call>",
        "</tool_call>",
        "<tool_call",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "[",
        "{",
    ),
    *(
        "}",
        "]",
        '"',
        "\\",
        ",",
        ":",
        ";",
        "\n",
        " ",
        "\t",
        "\x00",
        "\ufdd0",
        "é",
        "\U0001f600",
        "\ud83d",
        "1e999",
    ),
    *(
        "NaN",
        '"name"',
        '"arguments"',
        '"parameters"',
        '"f"',
        "null",
        "9" * 50,
        "{" * 70,
        "\\u00",
        "\\ud800",
        "  ",
    ),
)


def mutated(source: random.Random) -> str:
    """One output, or several in a row, with some of it removed, repeated, replaced or cut off."""
    text = "".join(source.choices(OUTPUTS, k=source.choice((1, 1, 1, 2, 3))))
    for _ in range(source.choice((0, 1, 1, 2, 4, 8))):
        at = source.randrange(len(text) + 1)
        kind = source.randrange(5)
        if kind == 0:
            text = text[:at] + text[at + source.choice((1, 2, 9)) :]
        elif kind == 1:
            text = text[:at] + source.choice(_PIECES) + text[at:]
        elif kind == 2:
            text = text[:at] + source.choice(_PIECES) + text[at + 1 :]
        elif kind == 3:
            text = text[:at] + text[max(0, at - source.choice((3, 20))) :]
        elif source.random() < 0.3:
            text = text[:at]
    return text
