"""HTTP: the engine behind the APIs that OpenAI's and Anthropic's clients speak. Needs the `serve` extra.

Rooms, each of which imports only from those above it (`tests/test_house.py` checks):

    seeing      what is known of requests and of the engine, and who is told: log, traces, figures
    worker      the engine and the process it runs in, from both sides of the socket between
    http        what all requests have in common: connections, guards, admission, errors, event streams
    settings    how a server is set up
    answers     from a request to pieces of text, whichever API it came by
    openai      chat, completions and embeddings
    responses   /v1/responses, over the chat
    anthropic   /v1/messages, over the chat
    batch       files of requests, answered without HTTP
    page        the page at /
    stats       GET /stats
    app         all routes, and what a request meets before them
    served      an engine and its text layer, as a server is given them
    server      the process: sockets, signals, the end

The way of a request: `http/connections`, `http/guard`, `app`, `openai/chat` (or another API's),
`answers/generation`, `worker/supervisor`, over the socket to `worker/worker`, and back.
"""
