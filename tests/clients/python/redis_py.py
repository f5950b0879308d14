"""redis-py with the broker in Redis' place: `python redis_py.py HOST:PORT 2|3 [PASSWORD]`, with the version of RESP.

With a password, the cases are about it alone. Prints a line per case; exits 1 if one failed. Everything holds for a
real Redis 7 as well.
"""

import asyncio
import socket
import struct
import sys
import threading
import time
import traceback

import redis
import redis.asyncio
from redis.backoff import ConstantBackoff
from redis.client import PubSub
from redis.retry import Retry

HOST, PORT = sys.argv[1].rsplit(":", 1)
TARGET = {"host": HOST.strip("[]"), "port": int(PORT), "protocol": int(sys.argv[2])}
IS_RESP3 = TARGET["protocol"] == 3

DEADLINE = 10
# Connections that are spread over the broker's shards, whichever they are.
MANY = 6
# Every byte there is.
BYTES = bytes(range(256))

clients = []


def connect(**options):
    """A client; it connects when it has something to say, and gives up where it cannot."""
    options = {"socket_timeout": DEADLINE, "retry": Retry(ConstantBackoff(0), 0), **TARGET, **options}
    client = redis.Redis(**options)
    clients.append(client)
    return client


def next_message(pubsub):
    """The next of whatever comes, confirmations too."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        # Waits; none is a handler's, a health check's or nothing.
        message = pubsub.get_message(timeout=end - time.monotonic())
        if message is not None:
            return message
    raise AssertionError("waited for a message")


def take(pubsub, count):
    return [next_message(pubsub) for _ in range(count)]


def subscriber(*channels, **options):
    """A subscription that is confirmed."""
    pubsub = connect(**options).pubsub()
    pubsub.subscribe(*channels)
    for message in take(pubsub, len(set(channels))):
        assert message["type"] == "subscribe", message
    return pubsub


def until(question, expected):
    """Asks until this is the answer; each question costs a round trip, which paces the loop."""
    end = time.monotonic() + DEADLINE
    while (answer := question()) != expected:
        assert time.monotonic() < end, f"{answer} for {expected}"


def refused(error, words, call, *arguments):
    """The call fails like this, with these words."""
    try:
        call(*arguments)
    except error as raised:
        assert words in str(raised), raised
        return
    raise AssertionError(f"{arguments} was not refused")


def small_talk(here):
    """connects, and answers small talk"""
    client = connect()
    assert client.ping() is True
    assert client.echo("hé") == "hé".encode()
    assert client.get("a key") is None
    assert client.exists("a key") == 0
    assert client.dbsize() == 0
    seconds, micros = client.time()
    assert abs(seconds - time.time()) < 60 and micros < 10**6
    info = client.info()
    assert info["redis_version"].count(".") == 2, info
    assert (info["role"], info["loading"]) == ("master", 0), info
    database = connect(db=1)
    assert database.ping() is True


def identities(here):
    """a client has an id, a name, and a line in the list"""
    client, other = connect(client_name=here, single_connection_client=True), connect(single_connection_client=True)
    assert client.client_getname() in (here, here.encode())
    assert other.client_getname() is None
    assert other.client_setname("late") is True
    mine, others = client.client_id(), other.client_id()
    assert mine > 0 and mine != others
    info = client.client_info()
    assert (int(info["id"]), info["name"]) == (mine, here), info
    listed = {int(line["id"]): line["name"] for line in client.client_list()}
    assert (listed[mine], listed[others]) == (here, "late"), listed


def channels(here):
    """a message comes to who subscribed, until the unsubscribe"""
    publisher = connect()
    pubsub = publisher.pubsub()
    pubsub.subscribe(here, f"{here}.more")
    counts = [(m["type"], m["channel"], m["data"]) for m in take(pubsub, 2)]
    assert counts == [("subscribe", here.encode(), 1), ("subscribe", f"{here}.more".encode(), 2)], counts
    assert publisher.publish(here, "one") == 1
    assert publisher.publish(f"{here}.below", "nobody") == 0
    assert next_message(pubsub) == {"type": "message", "pattern": None, "channel": here.encode(), "data": b"one"}
    pubsub.unsubscribe(here)
    assert next_message(pubsub)["data"] == 1
    assert publisher.publish(here, "late") == 0
    pubsub.unsubscribe()
    assert next_message(pubsub) == {
        "type": "unsubscribe", "pattern": None, "channel": f"{here}.more".encode(), "data": 0,
    }
    assert pubsub.subscribed is False


def patterns_and_shards(here):
    """patterns, handlers and shard channels"""
    publisher = connect()
    pubsub = publisher.pubsub(ignore_subscribe_messages=True)
    handled = []
    pubsub.psubscribe(f"{here}.*", **{f"{here}[1-3]": handled.append})
    pubsub.ssubscribe(here)
    pubsub.subscribe(f"{here} end")
    until(lambda: publisher.pubsub_numsub(f"{here} end")[0][1], 1)
    assert publisher.publish(f"{here}.uk.london", "x") == 1
    assert publisher.publish(f"{here}2", "y") == 1
    assert publisher.publish(here, "no shard channel") == 0
    assert publisher.spublish(here, "s") == 1
    assert publisher.publish(f"{here} end", "end") == 1
    heard = [(m["type"], m["pattern"], m["channel"], m["data"]) for m in take(pubsub, 3)]
    assert heard == [
        ("pmessage", f"{here}.*".encode(), f"{here}.uk.london".encode(), b"x"),
        ("smessage", None, here.encode(), b"s"),
        ("message", None, f"{here} end".encode(), b"end"),
    ], heard
    assert [(m["channel"], m["data"]) for m in handled] == [(f"{here}2".encode(), b"y")], handled
    assert publisher.pubsub_shardchannels(f"{here}*") == [here.encode()]
    assert publisher.pubsub_shardnumsub(here, "nobody") == [(here.encode(), 1), (b"nobody", 0)]


def binary(here):
    """channels and messages are bytes"""
    publisher = connect()
    pubsub = publisher.pubsub(ignore_subscribe_messages=True)
    channel, shard = here.encode() + BYTES, b"s" + here.encode() + BYTES
    pubsub.subscribe(channel)
    pubsub.ssubscribe(shard)
    until(lambda: publisher.pubsub_shardnumsub(shard), [(shard, 1)])
    for message in [BYTES, b"", b"\r\n$3\r\n", b"\xfe" * 900_000]:
        assert publisher.publish(channel, message) == 1
        assert publisher.spublish(shard, message) == 1
        heard = [(m["channel"], m["data"]) for m in take(pubsub, 2)]
        assert heard == [(channel, message), (shard, message)]


def counts(here):
    """a publish counts every subscription on every shard"""
    subscribers, publishers = [], [connect() for _ in range(MANY)]
    for count in range(1, MANY + 1):
        subscribers.append(subscriber(here))
        assert [publisher.publish(here, "x") for publisher in publishers] == [count] * MANY
    subscribers[0].psubscribe(f"{here}*")
    until(lambda: publishers[0].pubsub_numpat(), 1)
    assert [publisher.publish(here, "y") for publisher in publishers] == [MANY + 1] * MANY


def pipelines(here):
    """a thousand pipelined messages come in their order to everybody"""
    subscribers = [subscriber(here) for _ in range(MANY)]
    pipeline = connect().pipeline(transaction=False)
    for number in range(1000):
        pipeline.publish(here, str(number))
    pipeline.echo("between").publish(f"{here} nobody", "x")
    assert pipeline.execute() == [MANY] * 1000 + [b"between", 0]
    for pubsub in subscribers:
        assert [int(m["data"]) for m in take(pubsub, 1000)] == list(range(1000))


def while_subscribed(here):
    """while subscribed, what RESP allows"""
    pubsub = subscriber(here)
    pubsub.ping()
    assert next_message(pubsub) == {"type": "pong", "pattern": None, "channel": None, "data": b""}
    pubsub.ping("some words")
    assert next_message(pubsub)["data"] == b"some words"
    pubsub.execute_command("GET", "x")
    if IS_RESP3:
        assert pubsub.parse_response() is None
        # Its own message comes before the count.
        pubsub.execute_command("PUBLISH", here, "own")
        assert pubsub.parse_response() == [b"message", here.encode(), b"own"]
        assert pubsub.parse_response() == 1
    else:
        refused(redis.ResponseError, "Can't execute 'get': only (P|S)SUBSCRIBE", pubsub.parse_response)
    pubsub.subscribe(here)
    again = next_message(pubsub)
    assert (again["type"], again["data"]) == ("subscribe", 1), "a second time"


def introspection(here):
    """PUBSUB tells who listens"""
    client = connect()
    until(client.pubsub_numpat, 0)
    first, second = subscriber(f"{here}.a", f"{here}.b"), subscriber(f"{here}.a")
    first.psubscribe(f"{here}.p*", f"{here}.q*")
    second.psubscribe(f"{here}.p*")
    take(first, 2), take(second, 1)
    names = [f"{here}.{last}".encode() for last in "abc"]
    assert sorted(client.pubsub_channels(f"{here}.*")) == names[:2]
    assert client.pubsub_numsub(*names) == list(zip(names, [2, 1, 0]))
    assert client.pubsub_numpat() == 2
    second.close()
    until(lambda: client.pubsub_numsub(names[0]), [(names[0], 1)])


def errors(here):
    """errors are those of Redis, and end nothing"""
    client = connect(single_connection_client=True)
    say = client.execute_command
    refused(redis.ResponseError, "unknown command 'foo', with args beginning with: 'bar'", say, "foo", "bar")
    refused(redis.ResponseError, "wrong number of arguments for 'publish' command", say, "publish", "x")
    refused(redis.AuthenticationError, "without any password configured for the default user", say, "auth", "x")
    refused(redis.AuthenticationError, "invalid username-password pair or user is disabled", say, "auth", "x", "y")
    refused(redis.ResponseError, "DB index is out of range", say, "select", "99")
    refused(redis.ResponseError, "cluster support disabled", say, "cluster", "info")
    refused(redis.RedisError, "unsupported protocol version", say, "hello", "4")
    assert client.ping() is True


class Checked(PubSub):
    """Counts the health checks that were answered."""

    answered = 0

    def is_health_check_response(self, response):
        is_one = super().is_health_check_response(response)
        self.answered += is_one
        return is_one


def health_checks(here):
    """health checks go on beside the messages"""
    client, publisher = connect(health_check_interval=0.001), connect()
    pubsub = Checked(client.connection_pool)
    pubsub.subscribe(here)
    take(pubsub, 1)
    number = 0
    while pubsub.answered < 5:
        assert publisher.publish(here, str(number)) == 1
        assert next_message(pubsub)["data"] == str(number).encode()
        number += 1
    assert client.ping() is True


class Proxy:
    """A way to the broker that can be cut."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection((TARGET["host"], TARGET["port"]))
            self.sockets += [near, far]
            for pair in [(near, far), (far, near)]:
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        """Resets every connection."""
        for one in self.sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        self.sockets = []

    def close(self):
        self.listener.close()
        self.cut()


def comes_back(here):
    """who is cut off comes back with all subscriptions"""
    proxy = Proxy()
    retry = Retry(ConstantBackoff(0.001), 100)
    pubsub = connect(host="127.0.0.1", port=proxy.port, retry=retry).pubsub(ignore_subscribe_messages=True)
    publisher = connect()
    pubsub.subscribe(here)
    pubsub.psubscribe(f"p{here}*")
    pubsub.ssubscribe(f"s{here}")
    until(lambda: publisher.pubsub_shardnumsub(f"s{here}")[0][1], 1)
    for number in range(3):
        proxy.cut()
        # It notices, connects and subscribes while it is asked for messages. The shard channel comes last.
        message, end = None, time.monotonic() + DEADLINE
        while message is None or message["type"] != "smessage":
            assert time.monotonic() < end, "waited for the subscriptions"
            publisher.spublish(f"s{here}", "?")
            message = pubsub.get_message(timeout=0.01)
        # The connection that was cut may be the broker's for a moment longer.
        until(lambda: publisher.pubsub_numsub(here)[0][1], 1)
        assert publisher.publish(here, number) == 1
        assert publisher.publish(f"p{here}x", number) == 1
        assert publisher.spublish(f"s{here}", number) == 1
        heard = []
        while len(heard) < 3:
            message = next_message(pubsub)
            if message["data"] != b"?":
                assert message["data"] == str(number).encode()
                heard.append(message["type"])
        assert heard == ["message", "pmessage", "smessage"], heard
    pubsub.close()
    proxy.close()


async def in_asyncio(here):
    client = redis.asyncio.Redis(**TARGET, decode_responses=True)
    try:
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(here)
            await pubsub.psubscribe(f"{here}.*")
            counts = [await anext(pubsub.listen()) for _ in range(2)]
            assert [m["data"] for m in counts] == [1, 2], counts
            async with client.pipeline(transaction=False) as pipeline:
                for number in range(100):
                    pipeline.publish(here, number)
                    pipeline.publish(f"{here}.é", number)
                assert await pipeline.execute() == [1] * 200
            heard = []
            async for message in pubsub.listen():
                heard.append((message["type"], message["channel"], int(message["data"])))
                if len(heard) == 200:
                    break
            for index, kind in enumerate([("message", here), ("pmessage", f"{here}.é")]):
                assert heard[index::2] == [(*kind, number) for number in range(100)]
            assert dict(await client.pubsub_numsub(here)) == {here: 1}
            answers = await asyncio.gather(*(client.publish(here, number) for number in range(50)))
            assert answers == [1] * 50
            await pubsub.unsubscribe(here)
            await pubsub.punsubscribe(f"{here}.*")
    finally:
        await client.aclose()


def with_asyncio(here):
    """the client of asyncio"""
    asyncio.run(asyncio.wait_for(in_asyncio(here), DEADLINE))


def right_password(here):
    """the right password, alone and with the only name there is"""
    for options in [{"password": PASSWORD}, {"username": "default", "password": PASSWORD}]:
        pubsub = subscriber(here, **options)
        assert connect(**options).publish(here, "x") == 1
        assert next_message(pubsub)["data"] == b"x"
        pubsub.close()
        until(lambda: connect(**options).pubsub_numsub(here), [(here.encode(), 0)])


def wrong_password(here):
    """a wrong one is refused"""
    wrong = "invalid username-password pair or user is disabled"
    refused(redis.AuthenticationError, wrong, connect(password="wrong").ping)
    refused(redis.AuthenticationError, wrong, connect(username="somebody", password=PASSWORD).ping)


def no_password(here):
    """without one, nothing is done"""
    words = "HELLO must be called with the client already authenticated" if IS_RESP3 else "Authentication required."
    refused(redis.AuthenticationError, words, connect().publish, here, "x")
    refused(redis.AuthenticationError, words, subscriber, here)


PASSWORD = sys.argv[3] if len(sys.argv) > 3 else None
if PASSWORD:
    CASES = [right_password, wrong_password, no_password]
else:
    CASES = [
        small_talk, identities, channels, patterns_and_shards, binary, counts, pipelines, while_subscribed,
        introspection, errors, health_checks, comes_back, with_asyncio,
    ]

failed = 0
for index, case in enumerate(CASES):
    try:
        case(f"case{index}")
        print("ok", case.__doc__, flush=True)
    except Exception:
        failed += 1
        print("FAILED", case.__doc__, traceback.format_exc(), sep="\n", flush=True)
    for client in clients:
        client.close()
    clients.clear()
print(f"{len(CASES) - failed} of {len(CASES)} cases")
sys.exit(1 if failed else 0)
