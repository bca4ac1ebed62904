from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.control.protocol import (
    MAX_ANSWER_LINE,
    MAX_REQUEST,
    Answer,
    BadMessage,
    Done,
    Failed,
    HoldRuleAdd,
    HoldRuleRemove,
    HoldRules,
    Item,
    QueueAct,
    QueueBackup,
    QueueCount,
    QueueGroups,
    QueueList,
    QueueShow,
    Reload,
    Request,
    Status,
    Stop,
    Underway,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)

REQUESTS: list[Request] = [
    QueueList(),
    QueueList(after="4XYZ0z1"),
    QueueList(where="domain:a.example and age>1h"),
    QueueAct(verb="flush", where="ALL"),
    QueueAct(verb="requeue", where="4XYZ0z1", reason="grüße", tls_level="may", dry_run=True),
    QueueShow("4XYZ0z1"),
    QueueBackup("/backup/queue.tar"),
    HoldRules(),
    HoldRuleAdd("domain:a.example", "because"),
    HoldRuleRemove(7),
    QueueCount(),
    QueueGroups("reason", "age>1h"),
    Status(),
    Reload(),
    Stop(),
]
ANSWERS: list[Answer] = [
    Item({"queue_id": "x", "sender": "grüße\n"}),
    Done({}),
    Underway({"looked": 5000}),
    Done({"messages": 3}),
    Failed("why\nnot"),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_requests_go_through(request_: Request) -> None:
    line = encode_request(request_)
    assert line.index(b"\n") == len(line) - 1
    assert decode_request(line) == request_


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_go_through(answer: Answer) -> None:
    line = encode_answer(answer)
    assert line.index(b"\n") == len(line) - 1
    assert decode_answer(line) == answer


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not a JSON object"),
        (b"GET / HTTP/1.1\r\n", "not a JSON object"),
        (b"[]\n", "not a JSON object"),
        (b"\xff\xfe\n", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b"{}\n", "version None"),
        (b'{"v":2,"command":"stop"}\n', "version 2"),
        (b'{"v":1}\n', "unknown command 'None'"),
        (b'{"v":1,"command":["stop"]}\n', "unknown command"),
        (b'{"v":1,"command":"queue act","verb":1}\n', "verb: not a text"),
        (b'{"v":1,"command":"queue act","where":["ALL"]}\n', "where: not a text"),
        (b'{"v":1,"command":"queue act","reason":"a\\nb"}\n', "reason: not one line"),
        (b'{"v":1,"command":"queue act","reason":"' + b"x" * 501 + b'"}\n', "reason: not one line"),
        (b'{"v":1,"command":"queue show","id":"../../etc"}\n', "not a queue ID"),
        (b'{"v":1,"command":"hold rule remove","number":"1"}\n', "not a number"),
        (b'{"v":1,"command":"hold rule remove","number":true}\n', "not a number"),
        (b'{"v":1,"command":"hold rule remove","number":-1}\n', "not a number"),
        (b'{"v":1,"command":"queue list","after":{}}\n', "not a queue ID"),
        (b" " * (MAX_REQUEST + 1), "longer than"),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(line: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why.replace("[", r"\[")):
        decode_request(line)


@pytest.mark.parametrize(
    "line", [b'{"v":1}\n', b'{"v":1,"item":3}\n', b'{"v":1,"error":{}}\n', b" " * (MAX_ANSWER_LINE + 1)]
)
def test_what_is_no_answer_is_refused(line: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_answer(line)


@given(
    st.binary(max_size=200) | st.dictionaries(st.text(), st.text()).map(lambda x: json.dumps({"v": 1, **x}).encode())
)
def test_nothing_but_bad_message_comes_of_garbage(line: bytes) -> None:
    for decode in (decode_request, decode_answer):
        with suppress(BadMessage):
            decode(line)
