"""The store of finished generations: damaged files are ignored, and stored answers can be listed and removed."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from agentark.engines import Chat, Reply, Request, Store
from agentark.engines.store import stored_answers

KEY = "ab" * 32
GOOD = Reply("answer : 3", 5, 4, "stop", 0.1)


@pytest.mark.parametrize(
    "content",
    [b'[{"text": "\xff\xfe', b"", b"{", b"null", b"3", b'"text"', b"[null]", b'[{"text": "x"}]', b'{"text": "x"}',
     b'[{"text": 3, "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop", "seconds": 1}]',
     b'[{"text": "x", "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "odd", "seconds": 1}]', b"[" * 9000,
     b"[" * 900 + b"]" * 900, b"[]", b"{}", b"[[]]"],
)  # fmt: skip
def test_a_damaged_file_is_ignored(tmp_path, content):
    store = Store(tmp_path)
    store.path(KEY).parent.mkdir()
    store.path(KEY).write_bytes(content)
    assert store.read(KEY) is None
    assert [(file, record["finish_reason"]) for file, record in stored_answers(tmp_path)] == [
        (store.path(KEY), "damaged")
    ]


class Echo:
    """An engine whose reply is the last message."""

    fingerprint = "echo"

    def batches(self, requests):
        return [list(range(len(requests)))]

    def run(self, batches):
        yield 0, [Reply(r.messages[-1]["content"], 5, 4, "stop", 0.5) for r in batches[0].requests]


def test_a_wrong_number_of_replies_or_a_folder_is_generated_again(tmp_path):
    store, request = Store(tmp_path), Request([{"role": "user", "content": "2 + 2"}], 0.2, 72, 1)
    expected = store.generate(Echo(), [request])
    (file,) = tmp_path.rglob("*.json")
    (record,) = json.loads(file.read_text())
    for records in ([], {}, [record, record]):
        file.write_text(json.dumps(records))
        assert store.generate(Echo(), [request]) == expected
    file.unlink()
    file.mkdir()
    assert store.read(file.stem) is None and store.generate(Echo(), [request]) == expected
    assert json.loads(file.read_text()) == [record]


def test_lone_surrogates_are_replaced(tmp_path):
    store = Store(tmp_path)
    store.write(KEY, [replace(GOOD, text="a \ud83e", thought="\udc00")])
    assert store.read(KEY) == [replace(GOOD, text="a \ufffd", thought="\ufffd")]


def test_written_replies_are_read_also_in_the_older_format(tmp_path):
    store = Store(tmp_path)
    store.write(KEY, [GOOD], "engine of some kind")
    assert store.read(KEY) == [GOOD]
    records = json.loads(store.path(KEY).read_text())
    store.path(KEY).write_text(json.dumps([{k: v for k, v in r.items() if k != "engine"} for r in records]))
    assert store.read(KEY) == [GOOD]


def test_the_key_of_a_batch_and_its_file_format_are_fixed(tmp_path):
    """After a change of keys, every finished generation would be generated again."""
    requests = [Request([{"role": "user", "content": "2 + 2"}], 0.2, 72, 10101)]
    requests.append(Chat("off", 9, "Be brief.").request(requests[0].messages, 1.0, 72, 3))
    Store(tmp_path).generate(Echo(), requests)
    (file,) = tmp_path.rglob("*.json")
    assert file.stem == "a8fc4d48a4f241fabf82ec48f55bbb601a9d02afc8921610dfcd5981aea81e04"
    record = '{"text": "2 + 2", "prompt_tokens": 5, "completion_tokens": 4, "finish_reason": "stop", "seconds": 0.5, '
    assert file.read_text() == "[{0}, {0}]".format(record + '"thought": "", "engine": "echo"}')


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "agentark.engines.store", *arguments], capture_output=True, text=True)


def test_replies_are_listed_and_removed_by_search_words(tmp_path):
    store = Store(tmp_path)
    store.write("aa" * 32, [GOOD], "good model")
    store.write("bb" * 32, [Reply("<html>Bad Gateway</html>", 1, 1, "stop", 0.1)], "good model")
    store.write("cc" * 32, [Reply("", 1, 0, "stop", 0.1)], "other model")
    (tmp_path / "dd").mkdir()
    (tmp_path / "dd" / f"{'dd' * 32}.json").write_bytes(b"\xff")
    listed = command(str(tmp_path))
    assert listed.returncode == 0 and "2 files listed" in listed.stdout and "cccc" in listed.stdout
    removed = command(str(tmp_path), "bad gateway", "--remove")
    assert "bbbb" in removed.stdout and "1 files removed" in removed.stdout
    assert [store.read(k * 64) is not None for k in "abc"] == [True, False, True]
    command(str(tmp_path), "other model", "--remove")
    assert store.read("cc" * 32) is None and store.read("aa" * 32) == [GOOD]


def test_a_missing_folder_is_a_one_line_error():
    done = command("data/no such store")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "no such folder" in done.stderr
