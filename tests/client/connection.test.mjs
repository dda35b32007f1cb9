import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import { EARLIER_PAGE, READ_INTERVAL } from "../../app/chat/static/chat/connection.js";
import {
  GAP_ANSWER_TIMEOUT,
  GAP_DELAY_FIRST,
  GAP_DELAY_MOST,
} from "../../app/chat/static/chat/gaps.js";
import { ANSWER_PATIENCE } from "../../app/chat/static/chat/outbox.js";
import {
  HISTORY_PAGE,
  IMAGE_MAX_BYTES,
  MESSAGE_MAX_LENGTH,
  TYPING_INTERVAL,
} from "../../app/chat/static/chat/protocol.js";
import { Room, message, messages } from "./surroundings.mjs";

let room;

beforeEach(() => {
  room = new Room();
});

function pass(milliseconds) {
  room.surroundings.pass(milliseconds);
}

/** Let time go by on a socket that answers pings. */
function wait(milliseconds) {
  for (let left = milliseconds; left > 0; left -= 1000) {
    pass(Math.min(left, 1000));
    room.socket.tell({ type: "pong" });
  }
}

function asked() {
  return room.socket.actions("history").map(({ from, to }) => [from, to]);
}

function sent() {
  return room.socket.actions("send");
}

/** The answer to a question, of a room in which nothing is missing. */
function answer({ from, to }, newest) {
  const list = messages(from, Math.min(to, newest));
  room.history(list, { from, to, sequence: newest });
}

describe("coming and coming back", () => {
  it("is connected with the first history, and names the worker", () => {
    assert.deepEqual(room.told.state, [{ name: "connecting" }]);
    room.socket.tell({ type: "error", code: "invalid_after", error: "No." });
    assert.equal(room.told.state.length, 1);
    room.join(messages(1, 2));
    room.history(messages(3, 3), { sequence: 3 });
    assert.deepEqual(room.told.state.slice(1), [{ name: "connected", worker: "w1" }]);
    assert.deepEqual(room.told.messages, [1, 2, 3]);
  });

  it("asks for what came after the last message that was delivered", () => {
    assert.equal(room.socket.url, "ws://kit/ws/chat/lobby/");
    room.join(messages(1, 2));
    room.say(3);
    room.say(5);
    room.reconnect();
    assert.equal(room.socket.url, "ws://kit/ws/chat/lobby/?after=3");
    room.join(messages(4, 6));
    assert.deepEqual(room.told.messages, [1, 2, 3, 4, 5, 6]);
  });

  it("resumes after an empty room, too", () => {
    room.join([], 0);
    room.reconnect();
    assert.equal(room.socket.url, "ws://kit/ws/chat/lobby/?after=0");
  });

  it("takes as many histories as there are, and live messages between them", () => {
    room.join(messages(1, 1));
    room.reconnect();
    room.history(messages(2, 201), { sequence: 201 });
    room.say(403);
    room.history(messages(202, 401), { sequence: 401 });
    room.history(messages(402, 402), { sequence: 402 });
    assert.deepEqual(room.told.messages, messages(1, 403).map(({ sequence }) => sequence));
    pass(GAP_DELAY_MOST);
    assert.deepEqual(asked(), []);
  });

  it("believes a server whose database was restored", () => {
    room.join(messages(1, 9));
    room.say(11);
    room.reconnect();
    room.join([], 7);
    for (const sequence of [8, 9, 10]) {
      room.say(sequence);
    }
    assert.deepEqual(room.told.messages.slice(9), [8, 9, 10]);
    pass(GAP_DELAY_MOST);
    assert.deepEqual(asked(), []);
  });
});

describe("messages", () => {
  it("are dropped when they come again", () => {
    room.join(messages(1, 2));
    room.say(2);
    room.say(3);
    room.say(3);
    room.reconnect();
    room.join(messages(2, 4));
    assert.deepEqual(room.told.messages, [1, 2, 3, 4]);
  });

  it("that came before the first history are delivered after it, once", () => {
    room.say(3);
    room.say(2);
    assert.deepEqual(room.told.messages, []);
    room.join(messages(1, 2));
    assert.deepEqual(room.told.messages, [1, 2, 3]);
  });

  it("that overtook others wait for them", () => {
    room.join(messages(1, 1));
    room.say(4);
    room.say(3);
    assert.deepEqual(room.told.messages, [1]);
    room.say(2);
    assert.deepEqual(room.told.messages, [1, 2, 3, 4]);
    pass(GAP_DELAY_MOST);
    assert.deepEqual(asked(), []);
  });
});

describe("a gap", () => {
  beforeEach(() => {
    room.join(messages(1, 10));
    // Every wait is as long as it can be.
    room.surroundings.chance = 1;
  });

  it("is asked for after a while, and filled", () => {
    room.say(14);
    pass(GAP_DELAY_FIRST - 1);
    assert.deepEqual(asked(), []);
    pass(1);
    assert.deepEqual(asked(), [[11, 13]]);
    answer({ from: 11, to: 13 }, 14);
    assert.deepEqual(room.told.messages.slice(10), [11, 12, 13, 14]);
    pass(GAP_DELAY_MOST);
    assert.equal(asked().length, 1);
  });

  it("is asked for at a moment of each client's own", () => {
    room.surroundings.chance = 0;
    room.say(12);
    pass(GAP_DELAY_FIRST / 2 - 1);
    assert.deepEqual(asked(), []);
    pass(1);
    assert.deepEqual(asked(), [[11, 11]]);
  });

  it("is asked for in time even in a busy room", () => {
    for (let sequence = 12; sequence < 22; sequence += 1) {
      room.say(sequence);
      pass(GAP_DELAY_FIRST / 5);
    }
    assert.deepEqual(asked(), [[11, 11]]);
  });

  it("is not asked for when its message comes late", () => {
    room.say(12);
    pass(GAP_DELAY_FIRST - 1);
    room.say(11);
    pass(GAP_DELAY_MOST);
    assert.deepEqual(asked(), []);
  });

  it("is not asked for while the messages come, however late they are", () => {
    room.socket.tell({ type: "position", sequence: 30 });
    for (let sequence = 11; sequence <= 30; sequence += 1) {
      pass(GAP_DELAY_FIRST - 1);
      room.say(sequence);
    }
    assert.deepEqual(asked(), []);
  });

  it("above 200 is asked for in pieces, one after the other", () => {
    room.say(460);
    pass(GAP_DELAY_FIRST);
    assert.deepEqual(asked(), [[11, 210]]);
    answer({ from: 11, to: 210 }, 460);
    assert.deepEqual(asked().slice(1), [[211, 410]]);
    answer({ from: 211, to: 410 }, 460);
    answer({ from: 411, to: 459 }, 460);
    assert.deepEqual(asked().slice(2), [[411, 459]]);
    assert.ok(asked().every(([from, to]) => to - from < HISTORY_PAGE));
    assert.deepEqual(room.told.messages, messages(1, 460).map(({ sequence }) => sequence));
  });

  it("that begins behind an answer has a wait of its own", () => {
    room.say(12);
    pass(GAP_DELAY_FIRST);
    answer({ from: 11, to: 11 }, 20);
    assert.deepEqual(room.told.messages.slice(10), [11, 12]);
    pass(2 * GAP_DELAY_FIRST - 1);
    assert.deepEqual(asked(), [[11, 11]]);
    pass(1);
    assert.deepEqual(asked().slice(1), [[13, 20]]);
  });

  it("is noticed from a position", () => {
    room.socket.tell({ type: "position", sequence: 10 });
    room.socket.tell({ type: "position", sequence: 9 });
    pass(GAP_DELAY_FIRST);
    assert.deepEqual(asked(), []);
    room.socket.tell({ type: "position", sequence: 12 });
    room.socket.tell({ type: "position", sequence: 11 });
    pass(GAP_DELAY_FIRST);
    assert.deepEqual(asked(), [[11, 12]]);
  });

  it("is asked for again when nobody answers, later each time", () => {
    room.say(12);
    pass(GAP_DELAY_FIRST);
    for (let times = 1; times < 10; times += 1) {
      assert.equal(asked().length, times);
      const delay = Math.min(GAP_DELAY_MOST, GAP_DELAY_FIRST * 2 ** times);
      wait(GAP_ANSWER_TIMEOUT + delay - 1);
      assert.equal(asked().length, times);
      pass(1);
    }
  });

  it("is asked for again when the answer does not help, later each time", () => {
    room.socket.tell({ type: "position", sequence: 12 });
    pass(GAP_DELAY_FIRST);
    for (let times = 1; times < 10; times += 1) {
      assert.equal(asked().length, times);
      room.history([], { from: 11, to: 12, sequence: 10 });
      const delay = Math.min(GAP_DELAY_MOST, GAP_DELAY_FIRST * 2 ** times);
      wait(delay - 1);
      assert.equal(asked().length, times);
      pass(1);
    }
  });

  it("is asked for soon again after a request that was of use", () => {
    room.say(12);
    pass(GAP_DELAY_FIRST);
    answer({ from: 11, to: 11 }, 12);
    room.say(13);
    room.say(15);
    pass(GAP_DELAY_FIRST);
    assert.deepEqual(asked(), [[11, 11], [14, 14]]);
  });

  it("is asked for later after a request whose messages came by themselves", () => {
    room.say(12);
    pass(GAP_DELAY_FIRST);
    answer({ from: 11, to: 11 }, 12);
    room.say(11);
    room.say(13);
    room.say(15);
    pass(2 * GAP_DELAY_FIRST - 1);
    assert.deepEqual(asked(), [[11, 11]]);
    pass(1);
    assert.deepEqual(asked(), [[11, 11], [14, 14]]);
    assert.deepEqual(room.told.messages.slice(10), [11, 12, 13]);
  });

  it("is not asked for while the answer to another is awaited", () => {
    room.say(12);
    pass(GAP_DELAY_FIRST);
    room.say(11);
    room.say(14);
    pass(GAP_ANSWER_TIMEOUT - 1);
    assert.deepEqual(asked(), [[11, 11]]);
    room.history(messages(11, 11), { from: 11, to: 11, sequence: 14 });
    pass(2 * GAP_DELAY_FIRST);
    assert.deepEqual(asked(), [[11, 11], [13, 13]]);
  });

  it("holds nothing up when the server does not have the message either", () => {
    room.say(12);
    pass(GAP_DELAY_FIRST);
    room.history([], { from: 11, to: 11, sequence: 12 });
    assert.deepEqual(room.told.messages.slice(10), [12]);
  });

  it("is not skipped because a server does not have it yet", () => {
    room.socket.tell({ type: "position", sequence: 12 });
    pass(GAP_DELAY_FIRST);
    room.history([], { from: 11, to: 12, sequence: 10 });
    assert.deepEqual(asked(), [[11, 12]]);
    room.say(11);
    assert.deepEqual(room.told.messages.slice(10), [11]);
  });

  it("is left to the next socket when this one ends", () => {
    room.say(12);
    room.reconnect();
    pass(GAP_DELAY_MOST);
    assert.deepEqual(room.socket.sent, []);
  });

  it("has its whole wait on each socket", () => {
    room.say(12);
    pass(GAP_DELAY_FIRST - 1);
    room.surroundings.chance = 0;
    room.socket.end(1006);
    pass(0);
    room.surroundings.chance = 1;
    room.join([], 10);
    room.say(14);
    pass(GAP_DELAY_FIRST - 1);
    assert.deepEqual(room.socket.sent, []);
  });
});

describe("earlier messages", () => {
  it("are asked for below the oldest, and come apart from the new ones", () => {
    room.join(messages(61, 110));
    assert.equal(room.connection.hasEarlier, true);
    room.connection.earlier();
    assert.deepEqual(asked(), [[61 - EARLIER_PAGE, 60]]);
    answer({ from: 11, to: 60 }, 110);
    assert.deepEqual(room.told.earlier, [messages(11, 60).map(({ sequence }) => sequence)]);
    assert.equal(room.told.messages.length, 50);
    room.connection.earlier();
    assert.deepEqual(asked()[1], [1, 10]);
    answer({ from: 1, to: 10 }, 110);
    assert.equal(room.connection.hasEarlier, false);
  });

  it("are none where the whole room is there", () => {
    room.join(messages(1, 3));
    assert.equal(room.connection.hasEarlier, false);
  });
});

describe("what is said", () => {
  it("is pending until it comes back under its client_id", () => {
    room.join();
    assert.equal(room.connection.send("hello"), true);
    assert.deepEqual(room.pending, ["hello"]);
    const [first] = sent();
    assert.equal(first.message, "hello");
    assert.match(first.client_id, /^[0-9a-f]{32}$/);
    room.say(1, { client_id: "another's" });
    assert.deepEqual(room.pending, ["hello"]);
    room.confirm(2, first);
    assert.deepEqual(room.pending, []);
    assert.deepEqual(room.told.messages, [1, 2]);
  });

  it("is confirmed by a history, too", () => {
    room.join();
    room.connection.send("hello");
    const [first] = sent();
    room.reconnect();
    room.join([message(1, { client_id: first.client_id })]);
    assert.deepEqual(room.pending, []);
    assert.deepEqual(sent(), []);
  });

  it("is sent again after a reconnect, and confirmed by the answer to that", () => {
    room.join();
    room.connection.send("hello");
    const [first] = sent();
    room.reconnect();
    room.socket.open();
    pass(ANSWER_PATIENCE);
    assert.deepEqual(sent(), []);
    room.join(messages(1, 5));
    assert.deepEqual(sent(), [first]);
    room.confirm(3, first);
    assert.deepEqual(room.pending, []);
    assert.deepEqual(room.told.messages, [1, 2, 3, 4, 5]);
  });

  it("waits while there is no connection", () => {
    room.connection.send("early");
    assert.deepEqual(room.socket.sent, []);
    room.join();
    assert.equal(sent()[0].message, "early");
  });

  it("goes out in the order in which it was typed, one at a time", () => {
    room.join();
    for (const text of ["one", "two", "three"]) {
      room.connection.send(text);
    }
    assert.deepEqual(room.pending, ["one", "two", "three"]);
    assert.equal(sent().length, 1);
    room.confirm(1, sent()[0]);
    room.confirm(2, sent()[1]);
    assert.deepEqual(sent().map(({ message: text }) => text), ["one", "two", "three"]);
    assert.equal(new Set(sent().map(({ client_id: id }) => id)).size, 3);
    assert.deepEqual(room.pending, ["three"]);
  });

  it("is sent again when nothing answers it", () => {
    room.join();
    room.connection.send("hello");
    pass(ANSWER_PATIENCE - 1);
    assert.equal(sent().length, 1);
    pass(1);
    assert.equal(sent().length, 2);
    assert.equal(sent()[1].client_id, sent()[0].client_id);
  });

  it("waits as long as a flood of frames needs, and is then sent again", () => {
    room.join();
    room.connection.send("hello");
    room.socket.tell({ type: "error", code: "flood", error: "Wait 2 s.", retry_after: 2 });
    room.connection.send("more");
    pass(1999);
    assert.equal(sent().length, 1);
    pass(1);
    assert.deepEqual(sent().map(({ message: text }) => text), ["hello", "hello"]);
    assert.equal(room.told.error[0].code, "flood");
    assert.deepEqual(room.pending, ["hello", "more"]);
  });

  it("is dropped when the server refuses it, and the next goes out", () => {
    room.join();
    room.connection.send("refused");
    room.connection.send("next");
    const { client_id } = sent()[0];
    room.socket.tell({ type: "error", code: "invalid_text", error: "No.", client_id });
    assert.deepEqual(room.pending, ["next"]);
    assert.equal(sent()[1].message, "next");
    assert.equal(room.told.error[0].error, "No.");
    room.reconnect();
    room.join();
    assert.deepEqual(sent().map(({ message: text }) => text), ["next"]);
  });

  for (const [what, text, code] of [
    ["is empty", " \n", "empty_message"],
    ["is too long", "😀".repeat(MESSAGE_MAX_LENGTH + 1), "message_too_long"],
    ["has a null character", "a\0b", "invalid_text"],
    ["has half a surrogate pair", "a\ud800b", "invalid_text"],
  ]) {
    it(`never leaves when it ${what}`, () => {
      room.join();
      assert.equal(room.connection.send(text), false);
      assert.equal(room.told.error[0].code, code);
      assert.deepEqual(room.socket.sent, []);
      assert.deepEqual(room.told.pending, []);
    });
  }

  it("may have as many characters as the server counts", () => {
    assert.equal(room.connection.send("😀".repeat(MESSAGE_MAX_LENGTH)), true);
  });
});

describe("images", () => {
  const image = (size, type = "image/png") => new Blob([new Uint8Array(size)], { type });

  it("go out as binary frames", () => {
    room.join();
    const small = image(10);
    assert.equal(room.connection.sendImage(small), true);
    assert.deepEqual(room.socket.sent, [small]);
  });

  it("never leave when the server would refuse them, or when nobody is there", () => {
    room.socket.open();
    assert.equal(room.connection.sendImage(image(10)), false);
    room.join();
    assert.equal(room.connection.sendImage(image(IMAGE_MAX_BYTES + 1)), false);
    assert.equal(room.connection.sendImage(image(10, "image/svg+xml")), false);
    assert.deepEqual(
      room.told.error.map(({ code }) => code),
      ["not_connected", "image_too_large", "not_an_image"],
    );
    assert.deepEqual(room.socket.sent, []);
    assert.equal(room.connection.sendImage(image(IMAGE_MAX_BYTES)), true);
  });

  it("are told when their thumbnail is made", () => {
    const made = { url: "/images/1/", thumbnail: "/images/1/thumbnail/", width: 9, height: 9 };
    room.join(messages(1, 1));
    room.socket.tell({ type: "image", sequence: 1, image: made });
    assert.deepEqual(room.told.image, [[1, made]]);
  });

  it("have their thumbnail even when it overtook messages before theirs", () => {
    room.join(messages(1, 1));
    room.say(3, { image: { url: "/images/3/", thumbnail: null } });
    room.socket.tell({ type: "image", sequence: 3, image: { url: "/images/3/", thumbnail: "t" } });
    assert.deepEqual(room.told.image, []);
    room.say(2);
    assert.deepEqual(room.told.messages, [1, 2, 3]);
    assert.equal(room.told.newest.image.thumbnail, "t");
  });
});

describe("people", () => {
  it("are a list that follows who comes and goes", () => {
    room.join();
    room.socket.tell({ type: "presence", users: ["ada", "cleo"] });
    room.socket.tell({ type: "joined", user: "bob" });
    room.socket.tell({ type: "joined", user: "bob" });
    room.socket.tell({ type: "left", user: "ada" });
    room.socket.tell({ type: "presence", users: ["dora"] });
    assert.deepEqual(room.told.presence, [
      ["ada", "cleo"],
      ["ada", "bob", "cleo"],
      ["ada", "bob", "cleo"],
      ["bob", "cleo"],
      ["dora"],
    ]);
  });

  it("are told who types", () => {
    room.join();
    room.socket.tell({ type: "typing", user: "bob" });
    assert.deepEqual(room.told.typing, ["bob"]);
  });

  it("hear of one's own typing now and then", () => {
    room.connection.typing();
    room.join();
    room.connection.typing();
    pass(TYPING_INTERVAL - 1);
    room.connection.typing();
    assert.equal(room.socket.actions("typing").length, 1);
    pass(1);
    room.connection.typing();
    assert.equal(room.socket.actions("typing").length, 2);
  });
});

describe("what was read", () => {
  const read = () => room.socket.actions("read").map(({ sequence }) => sequence);

  it("is told at once, then now and then, and in the end", () => {
    room.join(messages(1, 5));
    room.connection.read(5);
    assert.deepEqual(read(), [5]);
    room.connection.read(7);
    room.connection.read(6);
    pass(READ_INTERVAL - 1);
    assert.deepEqual(read(), [5]);
    pass(1);
    assert.deepEqual(read(), [5, 7]);
    pass(READ_INTERVAL);
    room.connection.read(7);
    room.connection.read(3);
    assert.deepEqual(read(), [5, 7]);
  });

  it("is told after a reconnect when it could not be before", () => {
    room.join(messages(1, 5));
    room.socket.end(1006);
    room.connection.read(5);
    pass(1000);
    room.join([], 5);
    assert.deepEqual(read(), [5]);
  });

  it("is told before the page goes", () => {
    room.join(messages(1, 5));
    room.connection.read(4);
    room.connection.read(5);
    room.connection.close();
    assert.deepEqual(read(), [4, 5]);
    assert.equal(room.socket.closedWith, 1000);
  });
});
