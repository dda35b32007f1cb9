import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import {
  BASE_DELAY,
  HANDSHAKES_PATIENCE,
  HURRIED_DELAY,
  MAX_DELAY,
  PONG_PATIENCE,
  ReconnectingSocket,
  SILENCE,
  retryDelay,
} from "../../app/chat/static/chat/socket.js";
import { Surroundings, response, settled } from "./surroundings.mjs";

let around, states, frames, client;

beforeEach(() => {
  around = new Surroundings();
  states = [];
  frames = [];
  const handlers = { state: (state) => states.push(state), frame: (frame) => frames.push(frame) };
  client = new ReconnectingSocket(() => `ws://kit/${around.sockets.length}`, handlers, around);
  client.connect();
});

/** Let an attempt fail. */
async function refuse() {
  around.socket.end(1006);
  await settled();
}

/** Let attempts fail, and return the waits that were announced. */
async function fail(times) {
  for (let time = 0; time < times; time += 1) {
    await refuse();
    around.pass(states.at(-1).milliseconds);
  }
  return states.filter(({ name }) => name === "waiting").map(({ milliseconds }) => milliseconds);
}

describe("the wait before a retry", () => {
  it("is anything from nothing up to a limit that doubles, and no more than the cap", () => {
    for (const [failures, limit] of [[0, BASE_DELAY], [1, 2 * BASE_DELAY], [3, 8 * BASE_DELAY], [50, MAX_DELAY]]) {
      assert.equal(retryDelay(failures, () => 0), 0);
      assert.equal(retryDelay(failures, () => 0.5), limit / 2);
      assert.equal(retryDelay(failures, () => 1), limit);
    }
  });

  it("grows with each failure, and is kept", async () => {
    around.chance = 1;
    assert.deepEqual(await fail(3), [BASE_DELAY, 2 * BASE_DELAY, 4 * BASE_DELAY]);
    await refuse();
    around.pass(8 * BASE_DELAY - 1);
    assert.equal(around.sockets.length, 4);
    around.pass(1);
    assert.equal(around.sockets.length, 5);
  });

  it("starts small again after a frame, but not because a socket opened", async () => {
    around.chance = 1;
    await fail(2);
    around.socket.open();
    assert.equal((await fail(1)).at(-1), 4 * BASE_DELAY);
    around.socket.tell({ type: "ready" });
    assert.equal((await fail(1)).at(-1), BASE_DELAY);
  });

  it("can be cut short", async () => {
    await refuse();
    client.connect();
    assert.equal(around.sockets.length, 2);
    around.pass(MAX_DELAY);
    assert.equal(around.sockets.length, 2);
  });

  it("is not cut short by the one before it", async () => {
    around.chance = 1;
    await refuse();
    around.pass(BASE_DELAY - 1);
    client.connect();
    await refuse();
    around.pass(2 * BASE_DELAY - 1);
    assert.equal(around.sockets.length, 2);
  });
});

describe("the end of a connection", () => {
  for (const code of [1000, 1009, 4001, 4003, 4029]) {
    it(`is final with ${code}, and says why`, () => {
      around.socket.tell({ type: "ready" });
      around.socket.end(code);
      assert.equal(states.at(-1).name, "stopped");
      assert.equal(states.at(-1).code, code);
      assert.match(states.at(-1).reason, /^[A-Z].+\.$/);
      around.window.dispatchEvent(new Event("online"));
      around.pass(10 * MAX_DELAY);
      assert.equal(around.sockets.length, 1);
    });
  }

  for (const code of [1001, 1006, 1011, 1012, 1013, 4004]) {
    it(`is followed by another with ${code}`, () => {
      around.socket.open();
      around.socket.end(code);
      assert.equal(states.at(-1).name, "waiting");
      around.pass(BASE_DELAY);
      assert.equal(around.sockets.length, 2);
    });
  }

  it("is told in the server's words where it has some", () => {
    around.socket.end(4003, "The attic is closed.");
    assert.equal(states.at(-1).reason, "The attic is closed.");
  });

  it("is not followed by anything when the page wanted it", () => {
    around.socket.tell({ type: "ready" });
    client.close();
    assert.equal(around.socket.closedWith, 1000);
    around.pass(10 * MAX_DELAY);
    assert.equal(around.sockets.length, 1);
    client.connect();
    assert.equal(around.sockets.length, 2);
  });
});

it("tells its states in order", () => {
  around.socket.tell({ type: "ready" });
  around.socket.tell({ type: "more" });
  around.socket.end(1012);
  around.pass(BASE_DELAY);
  assert.deepEqual(
    states.map(({ name }) => name),
    ["connecting", "connected", "waiting", "connecting"],
  );
  assert.deepEqual(frames, [{ type: "ready" }, { type: "more" }]);
  assert.deepEqual(around.sockets.map(({ url }) => url), ["ws://kit/0", "ws://kit/1"]);
});

it("sends only on an open socket", () => {
  assert.equal(client.send({ action: "typing" }), false);
  around.socket.open();
  assert.equal(client.send({ action: "typing" }), true);
  assert.deepEqual(around.socket.sent, [{ action: "typing" }]);
});

describe("a sign that the network is back", () => {
  beforeEach(async () => {
    around.chance = 1;
    await fail(5);
    await refuse();
    around.chance = 0.5;
  });

  it("makes a waiting client retry soon, and not all clients at once", () => {
    around.window.dispatchEvent(new Event("online"));
    assert.deepEqual(states.at(-1), { name: "waiting", milliseconds: HURRIED_DELAY / 2 });
    around.pass(HURRIED_DELAY / 2);
    assert.equal(around.sockets.length, 7);
    around.pass(MAX_DELAY / 2);
    assert.equal(around.sockets.length, 7);
  });

  it("is a hidden page that becomes visible, too", () => {
    around.show("hidden");
    assert.notEqual(states.at(-1).milliseconds, HURRIED_DELAY / 2);
    around.show("visible");
    assert.equal(states.at(-1).milliseconds, HURRIED_DELAY / 2);
  });

  it("never makes the wait longer", () => {
    around.pass(states.at(-1).milliseconds - 10);
    around.window.dispatchEvent(new Event("online"));
    assert.equal(states.at(-1).milliseconds, 10);
  });
});

describe("a silent connection", () => {
  beforeEach(() => around.socket.tell({ type: "ready" }));

  it("is asked whether it is alive, and kept when it is", () => {
    around.pass(SILENCE - 1);
    assert.deepEqual(around.socket.sent, []);
    around.pass(1);
    assert.deepEqual(around.socket.sent, [{ action: "ping" }]);
    around.pass(PONG_PATIENCE - 1);
    around.socket.tell({ type: "pong" });
    around.pass(SILENCE - 1);
    assert.equal(around.socket.closedWith, null);
    assert.deepEqual(frames, [{ type: "ready" }]);
  });

  it("is not asked while frames come", () => {
    for (let time = 0; time < 5; time += 1) {
      around.pass(SILENCE - 1);
      around.socket.tell({ type: "ready" });
    }
    assert.deepEqual(around.sockets.map(({ sent }) => sent), [[]]);
  });

  it("is dropped and replaced when it does not answer", () => {
    const [dead] = around.sockets;
    around.pass(SILENCE + PONG_PATIENCE);
    assert.equal(dead.closedWith, 1000);
    assert.equal(states.at(-1).name, "waiting");
    around.pass(BASE_DELAY);
    assert.equal(around.sockets.length, 2);
    dead.end(1006);
    dead.tell({ type: "late" });
    assert.equal(states.at(-1).name, "connecting");
    assert.deepEqual(frames, [{ type: "ready" }]);
  });

  it("is kept while an image goes out slowly", () => {
    around.socket.bufferedAmount = 1000;
    around.pass(SILENCE);
    around.socket.bufferedAmount = 900;
    around.pass(PONG_PATIENCE);
    assert.equal(around.socket.closedWith, null);
    around.pass(PONG_PATIENCE);
    assert.equal(around.socket.closedWith, 1000);
  });

  it("is asked at once when the network may be another one", () => {
    around.window.dispatchEvent(new Event("online"));
    assert.deepEqual(around.socket.sent, [{ action: "ping" }]);
    around.pass(PONG_PATIENCE);
    assert.equal(states.at(-1).name, "waiting");
  });
});

it("gives up an attempt that hangs", async () => {
  around.pass(SILENCE + PONG_PATIENCE);
  await settled();
  assert.equal(states.at(-1).name, "waiting");
});

describe("a handshake that failed", () => {
  beforeEach(() => {
    around.chance = 0.25;
  });

  it("makes the client ask the edge once whether it refuses handshakes", async () => {
    around.socket.end(1006);
    assert.equal(states.at(-1).name, "connecting");
    await settled();
    around.pass(MAX_DELAY);
    const question = { cache: "no-store", credentials: "omit" };
    assert.deepEqual(around.asked, [{ url: "http://kit/-/handshakes", ...question }]);
    assert.equal(around.sockets.length, 2);
  });

  it("is asked about over TLS where the socket was", async () => {
    client = new ReconnectingSocket(() => "wss://kit/ws/", { state() {}, frame() {} }, around);
    client.connect();
    await refuse();
    assert.deepEqual(around.asked.map(({ url }) => url), ["https://kit/-/handshakes"]);
  });

  it("is not asked about if it was none", async () => {
    around.socket.open();
    await refuse();
    around.pass(MAX_DELAY);
    assert.deepEqual(around.asked, []);
    await refuse();
    around.pass(MAX_DELAY);
    assert.equal(around.asked.length, 1);
    around.socket.end(4001);
    await settled();
    assert.equal(around.asked.length, 1);
  });

  it("is repeated when the edge says, and over as long again", async () => {
    around.answer = response(503, { "Retry-After": "5" });
    await fail(2);
    await refuse();
    assert.deepEqual(states.at(-1), { name: "waiting", milliseconds: 6250 });
    around.pass(6249);
    assert.equal(around.sockets.length, 3);
    around.pass(1);
    assert.equal(around.sockets.length, 4);
    assert.equal(around.asked.length, 3);
    around.answer = response(204);
    await refuse();
    assert.equal(states.at(-1).milliseconds, 2 * BASE_DELAY);
    around.window.dispatchEvent(new Event("online"));
    assert.equal(states.at(-1).milliseconds, HURRIED_DELAY / 4);
  });

  it("is not repeated sooner by a sign that the network is back", async () => {
    around.answer = response(503, { "Retry-After": "5" });
    await refuse();
    around.window.dispatchEvent(new Event("online"));
    around.pass(6249);
    assert.equal(around.sockets.length, 1);
    client.connect();
    assert.equal(around.sockets.length, 2);
  });

  for (const [answer, words] of [
    [() => response(204), "takes handshakes"],
    [() => response(404), "does not know the question"],
    [() => response(200, { "Retry-After": "5" }), "is none"],
    [() => response(503), "names no time"],
    [() => response(503, { "Retry-After": "soon" }), "names none that is understood"],
    [() => Promise.reject(new TypeError("fetch failed")), "cannot be reached"],
  ]) {
    it(`is repeated as ever when the edge ${words}`, async () => {
      around.answer = answer();
      await refuse();
      assert.deepEqual(states.at(-1), { name: "waiting", milliseconds: BASE_DELAY / 4 });
      around.window.dispatchEvent(new Event("online"));
      assert.deepEqual(states.at(-1).milliseconds, HURRIED_DELAY / 4);
    });
  }

  it("is repeated as ever when the edge does not answer in time", async () => {
    around.answer = new Promise(() => {});
    await refuse();
    around.pass(HANDSHAKES_PATIENCE - 1);
    await settled();
    assert.equal(states.at(-1).name, "connecting");
    around.pass(1);
    await settled();
    assert.deepEqual(states.at(-1), { name: "waiting", milliseconds: BASE_DELAY / 4 });
  });

  it("is repeated at once when the page wants it, and no answer counts any more", async () => {
    around.answer = response(503, { "Retry-After": "5" });
    around.socket.end(1006);
    client.connect();
    await settled();
    around.pass(MAX_DELAY);
    assert.equal(around.sockets.length, 2);
    assert.deepEqual(states.map(({ name }) => name), ["connecting", "connecting"]);
  });

  it("is not repeated when the page has gone", async () => {
    around.socket.end(1006);
    client.close();
    await settled();
    around.pass(MAX_DELAY);
    assert.equal(around.sockets.length, 1);
    assert.equal(states.at(-1).name, "connecting");
  });
});
