#!/usr/bin/env python3
"""An application server beside the broker, in the standard library alone.

    pubsub --peers 127.0.0.1:8100
    python3 examples/python/peer.py 127.0.0.1:8100

It subscribes to `chat`, answers requests `sum`, and says so; a browser, a Redis client or another peer may ask it. The
protocol is docs/protocols/peer.md; `Peer` below is a client of most of it, and short enough to be a start of your own.
"""

import itertools
import json
import os
import queue
import socket
import struct
import sys
import threading

# Calls.
HELLO, SUBSCRIBE, UNSUBSCRIBE, PUBLISH, EMIT, REQUEST, REPLY, FAIL, HANDLE, UNHANDLE, WATCH = range(1, 12)
ALIVE, BYE = 0x15, 0x16
# Events.
WELCOME, DONE, MESSAGE, GAP, EVENT, ASKED = range(0x41, 0x47)
PROBE, GOODBYE = 0x54, 0x55

DOTTED, EXACT, GLOB = 1, 2, 3
JSON, TEXT, BINARY = 1, 2, 3


class Failed(Exception):
    """A call that was not done: its code, and a sentence."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


def name(text):
    """`u16` length and bytes."""
    data = text.encode()
    return struct.pack("<H", len(data)) + data


def payload(value):
    """Bytes are binary; anything else is JSON."""
    if isinstance(value, bytes):
        return bytes([BINARY]) + value
    return bytes([JSON]) + json.dumps(value).encode()


class Fields:
    """Reads the fields of a frame from the first to the last."""

    def __init__(self, frame):
        self.frame, self.at = frame, 0

    def take(self, size):
        piece = self.frame[self.at : self.at + size]
        if len(piece) < size:
            raise ValueError("the frame ends early")
        self.at += size
        return piece

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def name(self):
        return self.take(self.number("H")).decode()

    def rest(self):
        return self.take(len(self.frame) - self.at)

    def payload(self):
        kind, data = self.number("B"), self.rest()
        if kind == JSON:
            return json.loads(data)
        return data.decode() if kind == TEXT else data


class Peer:
    """One connection. A thread reads it; calls may be made from any other, and wait for their DONE."""

    def __init__(self, address, own_name, key="", timeout=10):
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address[len("unix:") :])
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sending = threading.Lock()
        self.tickets = itertools.count(1)
        # What each ticket that is waited for came to.
        self.waiting = {}
        self.messages, self.handlers = {}, {}
        # Whatever calls us back runs here, so that it may make calls itself.
        self.news = queue.Queue()
        self.ended = None
        self.send(HELLO, struct.pack("<H", 1) + name(own_name) + name(key))
        # Until then there is no thread, so nobody else reads.
        self.socket.settimeout(timeout)
        self.take(self.read())
        self.socket.settimeout(None)
        for work in (self.keep_reading, self.keep_telling):
            threading.Thread(target=work, daemon=True).start()

    # Calls.

    def subscribe(self, pattern, tell, kind=DOTTED):
        """`tell(topic, value)` for each message that matches, from the return on; a gap is told as a `Failed`."""
        self.messages[kind, pattern] = tell
        return self.call(SUBSCRIBE, bytes([kind]) + pattern.encode())

    def unsubscribe(self, pattern, kind=DOTTED):
        self.call(UNSUBSCRIBE, bytes([kind]) + pattern.encode())
        self.messages.pop((kind, pattern), None)

    def publish(self, topic, value, kind=DOTTED, echo=True):
        return self.call(PUBLISH, bytes([0 if echo else 1, kind]) + name(topic) + payload(value))

    def emit(self, event, value, to=None, volatile=False):
        return self.call(EMIT, bytes([volatile]) + self.target(to) + name(event) + payload(value))

    def request(self, event, value, to=None, timeout=10):
        """The answer of one that handles the event, or of the peer named `to`."""
        fields = struct.pack("<I", int(timeout * 1000)) + self.target(to) + name(event) + payload(value)
        # The broker keeps the time; this is for a broker that is gone.
        return self.call(REQUEST, fields, timeout + 10)

    def handle(self, event, answer):
        """`answer(value)` for each request, and each event, of this name; what it returns is the reply."""
        self.handlers[event] = answer
        return self.call(HANDLE, event.encode())

    def close(self):
        self.send(BYE, b"")
        self.socket.close()

    @staticmethod
    def target(peer):
        return b"\x01" if peer is None else b"\x04" + name(peer)

    # The wire.

    def call(self, kind, fields, timeout=60):
        """Makes a call with a ticket, and waits for its DONE."""
        ticket, done = next(self.tickets), queue.Queue(1)
        self.waiting[ticket] = done
        try:
            self.send(kind, struct.pack("<Q", ticket) + fields)
            if self.ended:
                raise self.ended
            result = done.get(timeout=timeout)
        except queue.Empty:
            raise Failed("timeout", "the broker does not answer") from None
        finally:
            self.waiting.pop(ticket, None)
        if isinstance(result, Failed):
            raise result
        return result

    def send(self, kind, fields):
        frame = struct.pack("<IB", 1 + len(fields), kind) + fields
        with self.sending:
            self.socket.sendall(frame)

    def read(self):
        def exactly(size):
            data = b""
            while len(data) < size:
                piece = self.socket.recv(size - len(data))
                if not piece:
                    raise ConnectionError("the broker has closed the connection")
                data += piece
            return data

        return exactly(*struct.unpack("<I", exactly(4)))

    def keep_reading(self):
        try:
            while True:
                self.take(self.read())
        except (OSError, ValueError, Failed) as error:
            self.ended = error if isinstance(error, Failed) else Failed("gone", str(error))
        for done in list(self.waiting.values()):
            done.put(self.ended)
        self.news.put(None)

    def take(self, frame):
        fields = Fields(frame)
        kind = fields.number("B")
        if kind == DONE:
            done = self.waiting.get(fields.number("Q"))
            is_failed = fields.number("B")
            result = Failed(fields.name(), fields.rest().decode()) if is_failed else fields.payload()
            if done:
                done.put(result)
        elif kind == PROBE:
            # At once, whatever our callbacks are doing.
            self.send(ALIVE, b"")
        elif kind == GOODBYE:
            raise Failed(fields.name(), fields.rest().decode())
        else:
            # WELCOME says who we are; there is nothing to do about it.
            self.news.put((kind, fields))

    def keep_telling(self):
        for kind, fields in iter(self.news.get, None):
            if kind == MESSAGE:
                topic, of, pattern = fields.name(), fields.number("B"), fields.name()
                self.messages.get((of, pattern), lambda *_: None)(topic, fields.payload())
            elif kind == GAP:
                count, topic = fields.number("Q"), fields.rest().decode()
                for tell in list(self.messages.values()):
                    tell(topic, Failed("gap", f"{count} messages of {topic} were skipped"))
            elif kind == EVENT:
                if fields.number("B"):
                    fields.take(15), fields.name()
                event = fields.name()
                self.handlers.get(event, lambda _: None)(fields.payload())
            elif kind == ASKED:
                number, _timeout_ms = fields.number("Q"), fields.number("I")
                _client, _peer, event = fields.take(15), fields.name(), fields.name()
                self.answer(number, event, fields.payload())

    def answer(self, number, event, value):
        try:
            if event not in self.handlers:
                raise Failed("no_handler", "this peer does not handle it")
            self.send(REPLY, struct.pack("<Q", number) + payload(self.handlers[event](value)))
        except Exception as error:
            code = error.code if isinstance(error, Failed) else "failed"
            self.send(FAIL, struct.pack("<Q", number) + name(code) + str(error).encode())


def main():
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8100"
    key = os.environ.get("PUBSUB_PEER_KEY", "")
    say = lambda *words: print(*words, flush=True)

    calc = Peer(address, "calc", key)
    calc.handle("sum", sum)
    calc.subscribe("chat", lambda topic, value: say("received:", topic, json.dumps(value)))
    say("ready")

    shop = Peer(address, "shop", key)
    say("answered:", shop.request("sum", [1, 2, 3]))
    try:
        shop.request("sum", ["a", 1], to="calc")
    except Failed as error:
        say("refused:", error.code)
    shop.publish("chat.lobby", {"name": "shop", "text": "open"})
    shop.close()

    # Until somebody says that it is enough.
    sys.stdin.read()
    calc.close()


if __name__ == "__main__":
    main()
