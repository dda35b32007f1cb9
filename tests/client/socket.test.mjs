import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import {
  BASE_DELAY,
  HURRIED_DELAY,
  MAX_DELAY,
  PONG_PATIENCE,
  ReconnectingSocket,
  SILENCE,
  retryDelay,
} from "../../app/chat/static/chat/socket.js";
import { Surroundings } from "./surroundings.mjs";

let around, states, frames, client;

beforeEach(() => {
  around = new Surroundings();
  states = [];
  frames = [];
  const handlers = { state: (state) => states.push(state), frame: (frame) => frames.push(frame) };
  client = new ReconnectingSocket(() => `ws://kit/${around.sockets.length}`, handlers, around);
  client.connect();
});

/** Let attempts fail, and return the waits that were announced. */
function fail(times) {
  for (let time = 0; time < times; time += 1) {
    around.socket.end(1006);
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

  it("grows with each failure, and is kept", () => {
    around.chance = 1;
    assert.deepEqual(fail(3), [BASE_DELAY, 2 * BASE_DELAY, 4 * BASE_DELAY]);
    around.socket.end(1006);
    around.pass(8 * BASE_DELAY - 1);
    assert.equal(around.sockets.length, 4);
    around.pass(1);
    assert.equal(around.sockets.length, 5);
  });

  it("starts small again after a frame, but not because a socket opened", () => {
    around.chance = 1;
    fail(2);
    around.socket.open();
    assert.equal(fail(1).at(-1), 4 * BASE_DELAY);
    around.socket.tell({ type: "ready" });
    assert.equal(fail(1).at(-1), BASE_DELAY);
  });

  it("can be cut short", () => {
    around.socket.end(1006);
    client.connect();
    assert.equal(around.sockets.length, 2);
    around.pass(MAX_DELAY);
    assert.equal(around.sockets.length, 2);
  });

  it("is not cut short by the one before it", () => {
    around.chance = 1;
    around.socket.end(1006);
    around.pass(BASE_DELAY - 1);
    client.connect();
    around.socket.end(1006);
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
  beforeEach(() => {
    around.chance = 1;
    fail(5);
    around.socket.end(1006);
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

it("gives up an attempt that hangs", () => {
  around.pass(SILENCE + PONG_PATIENCE);
  assert.equal(states.at(-1).name, "waiting");
});
