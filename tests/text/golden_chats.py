"""Chats and templates whose renderings by Hugging Face are kept in golden/chats.json."""

from __future__ import annotations

from typing import Any

Chat = list[dict[str, Any]]

CHATS: list[Chat] = [
    [{"role": "user", "content": "hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 12 * 34?"}],
    [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A model."},
        {"role": "user", "content": "  And\n\nthen?\t"},
    ],
    [{"role": "user", "content": "日本語 naïve 😀 \u200b\u00a0 x² ½"}],
    [{"role": "user", "content": "def f(x):\n    return x < 3 and x > 1  # <b>no</b> | [INST]"}],
    [{"role": "user", "content": ""}, {"role": "assistant", "content": "Go on"}],
    [{"role": "user", "content": "one 1 22 333"}, {"role": "assistant", "content": "and so "}],
]

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "a & b <c>",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
_CALL: Chat = [
    {"role": "user", "content": "add"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "é"}}}],
    },
    {"role": "tool", "content": "3", "name": "add"},
]
_PARTS: Chat = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": " b "}]}]

TEMPLATES: list[dict[str, Any]] = [
    {
        "template": "{% for m in messages %}\n    {% if m.role == 'user' %}\n[{{ m['content'] | trim }}]\n"
        "    {%- else %}\n({{ m.content }})\n    {%- endif %}\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}",
        "messages": CHATS[2],
        "options": {"add_generation_prompt": True},
    },
    {
        "template": "{{ tools | tojson }}|{{ tools | tojson(indent=2) }}|{{ messages[1].tool_calls[0].function.arguments "
        "| tojson }}{% for m in messages[1:] %}{{ loop.index0 }}{{ m.role }}{% endfor %}",
        "messages": _CALL,
        "options": {"tools": _TOOLS},
    },
    {
        "template": "{%- set ns = namespace(n=0, last='') -%}{% for m in messages %}{% if m.content is string %}"
        "{% set ns.n = ns.n + m.content | length %}{% set ns.last = m.content.split(' ')[-1] %}{% endif %}{% endfor %}"
        "{{ ns.n }}{{ ns.last }}{{ messages[::-1] | map(attribute='role') | join(',') }}",
        "messages": CHATS[2],
        "options": {},
    },
    {
        "template": "{% macro show(x, deep=1) %}{{ x ~ '!' * deep }}{% endmacro %}{% for m in messages %}"
        "{% if loop.first %}{% continue %}{% endif %}{{ show(m.content.strip(), 2) }}{% if loop.index > 1 %}{% break %}"
        "{% endif %}{% endfor %}",
        "messages": CHATS[2],
        "options": {},
    },
    {
        "template": "{% for m in messages %}{% for p in m.content if p.type == 'text' %}{{ p.text | upper }};{% endfor %}"
        "{% endfor %}{{ 'x' if enable_thinking is defined and enable_thinking else 'y' }}{{ none_such or 'd' }}",
        "messages": _PARTS,
        "options": {"enable_thinking": True},
    },
    {
        "template": "{% for m in messages %}{{ '%s:%03d' % (m.role, loop.index) }}{{ m.content.startswith('A') }}"
        "{{ m.content.replace('o', '0') | capitalize | replace('e', 'E') }}{{ m | tojson }}{{ m }}{% endfor %}",
        "messages": CHATS[1],
        "options": {},
    },
    {
        "template": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
        "{% set x %}a{{ messages | length }}{% endset %}{{ x }}{{ range(3) | list }}{{ dict(a=1) }}{{ 7 // 2 }}{{ 2 ** 5 }}",
        "messages": CHATS[0],
        "options": {},
    },
    {
        "template": "{% for k, v in messages[0].items() %}{{ k }}={{ v | e }}{% endfor %}{{ messages | selectattr('role', "
        "'equalto', 'user') | list | length }}{{ [3, 1, 2] | sort | first }}{{ 'a-b' | indent(2, true) }}{{ 'ab'[::-1] }}",
        "messages": CHATS[4],
        "options": {},
    },
]
