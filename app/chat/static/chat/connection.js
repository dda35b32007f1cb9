/**
 * One room over a WebSocket that comes back after every interruption without losing, repeating or
 * reordering a message. Knows nothing of the page.
 */

import { GapRequests } from "./gaps.js";
import { Outbox } from "./outbox.js";
import {
  Action,
  ErrorCode,
  FrameType,
  HISTORY_PAGE,
  IMAGE_MAX_BYTES,
  IMAGE_TYPES,
  MESSAGE_MAX_LENGTH,
  TYPING_INTERVAL,
} from "./protocol.js";
import { Sequence } from "./sequence.js";
import { ReconnectingSocket, browser } from "./socket.js";

/** In milliseconds. */
export const READ_INTERVAL = 5000;

/** Messages that earlier() asks for at once. */
export const EARLIER_PAGE = 50;

export class RoomConnection {
  #url;
  #handlers;
  #environment;
  #socket;
  #outbox;
  #sequence = new Sequence();
  /** Whether this socket's first history has come. */
  #joined = false;
  /** The number of the oldest message that is known. */
  #oldest = 1;
  #gaps;
  #people = new Set();
  #typedAt = -Infinity;
  /** How far the user has read, and how far the server was told so. */
  #read = 0;
  #readTold = 0;
  #readTimer = null;

  /**
   * @param {string} url the room's socket, ws: or wss:, without a query
   * @param {object} handlers
   * @param {(messages: object[]) => void} handlers.messages new messages: in order, without gaps, once
   * @param {(messages: object[]) => void} handlers.earlier the answer to earlier(), oldest first
   * @param {(state: object) => void} handlers.state as of ReconnectingSocket; {name: "connected",
   *   worker} comes after the first messages
   * @param {(texts: string[]) => void} handlers.pending what was sent and has not come back
   * @param {(users: string[]) => void} handlers.presence who is here, sorted
   * @param {(user: string) => void} handlers.typing
   * @param {(sequence: number, image: object) => void} handlers.image a thumbnail has been made
   * @param {(error: {code: string, error: string, retry_after?: number}) => void} handlers.error
   *   something was refused, by the server or before it was sent
   * @param {typeof browser} [environment]
   */
  constructor(url, handlers, environment = browser) {
    this.#url = url;
    this.#handlers = handlers;
    this.#environment = environment;
    this.#socket = new ReconnectingSocket(
      () => this.#address(),
      { state: (state) => this.#changed(state), frame: (frame) => this.#receive(frame) },
      environment,
    );
    this.#gaps = new GapRequests(() => this.#askForGap(), environment);
    this.#outbox = new Outbox(
      (action) => this.#socket.send(action),
      (texts) => handlers.pending(texts),
      environment,
    );
  }

  /** Whether the room has messages before the oldest known. */
  get hasEarlier() {
    return this.#oldest > 1;
  }

  /** Open the socket, now. */
  connect() {
    this.#socket.connect();
  }

  /** Leave the room; connect() comes back into it. */
  close() {
    this.#tellRead();
    this.#leave();
    this.#socket.close();
  }

  /**
   * Say something to the room, now or as soon as there is a connection; it comes back as a message
   * like everyone's.
   * @returns {boolean} false when the server would refuse it, which handlers.error has told
   */
  send(text) {
    const length = [...text].length;
    if (text.trim() === "") {
      this.#refuse(ErrorCode.EMPTY_MESSAGE, "The message is empty.");
    } else if (length > MESSAGE_MAX_LENGTH) {
      const words = `The message has ${length} characters; ${MESSAGE_MAX_LENGTH} are allowed.`;
      this.#refuse(ErrorCode.MESSAGE_TOO_LONG, words);
    } else if (/[\0\p{Surrogate}]/u.test(text)) {
      const words = "The message has a null character or half a surrogate pair.";
      this.#refuse(ErrorCode.INVALID_TEXT, words);
    } else {
      this.#outbox.add(text);
      return true;
    }
    return false;
  }

  /**
   * Send an image. Nothing keeps it: one that an interruption cut off is to be sent again.
   * @param {Blob} image
   * @returns {boolean} whether it is on its way; if not, handlers.error has told why
   */
  sendImage(image) {
    if (!IMAGE_TYPES.includes(image.type)) {
      this.#refuse(ErrorCode.NOT_AN_IMAGE, "Only PNG, JPEG, GIF and WebP images can be sent.");
    } else if (image.size > IMAGE_MAX_BYTES) {
      const words = `The image has ${image.size} bytes; ${IMAGE_MAX_BYTES} are allowed.`;
      this.#refuse(ErrorCode.IMAGE_TOO_LARGE, words);
    } else if (!this.#joined || !this.#socket.send(image)) {
      this.#refuse("not_connected", "There is no connection: send the image when it is back.");
    } else {
      return true;
    }
    return false;
  }

  /** Ask for messages before the oldest known; handlers.earlier gets them. */
  earlier() {
    const to = this.#oldest - 1;
    const from = Math.max(1, this.#oldest - EARLIER_PAGE);
    this.#socket.send({ action: Action.HISTORY, from, to });
  }

  /** The user is typing: call it for every key, the others are told now and then. */
  typing() {
    const now = this.#environment.now();
    if (now - this.#typedAt >= TYPING_INTERVAL && this.#joined) {
      this.#typedAt = now;
      this.#socket.send({ action: Action.TYPING });
    }
  }

  /** The user has seen everything up to this number. */
  read(sequence) {
    this.#read = Math.max(this.#read, sequence);
    if (this.#readTimer === null) {
      this.#tellRead();
    }
  }

  #address() {
    const { known } = this.#sequence;
    return known === null ? this.#url : `${this.#url}?after=${known}`;
  }

  #changed(state) {
    // "connected" is told with the first history, which names the worker.
    if (state.name !== "connected") {
      this.#leave();
      this.#handlers.state(state);
    }
  }

  #leave() {
    this.#joined = false;
    this.#outbox.shut();
    this.#sequence.restart();
    this.#gaps.stop();
  }

  #receive(frame) {
    switch (frame.type) {
      case FrameType.HISTORY:
        if (frame.from === undefined) {
          this.#receiveHistory(frame);
        } else if (frame.to === this.#oldest - 1) {
          this.#oldest = frame.from;
          this.#handlers.earlier(frame.messages);
        } else {
          this.#deliver(this.#sequence.fill(frame), { answer: true });
        }
        break;
      case FrameType.MESSAGE:
        if (frame.sequence <= this.#sequence.known) {
          // The answer to a message that was sent twice, or one that came late.
          this.#outbox.remove(frame.client_id);
          this.#gaps.copied();
        } else {
          this.#deliver(this.#sequence.add(frame));
        }
        break;
      case FrameType.POSITION:
        this.#sequence.notice(frame.sequence);
        this.#deliver([]);
        break;
      case FrameType.IMAGE:
        if (!this.#sequence.setImage(frame.sequence, frame.image)) {
          this.#handlers.image(frame.sequence, frame.image);
        }
        break;
      case FrameType.PRESENCE:
        this.#people = new Set(frame.users);
        this.#tellPresence();
        break;
      case FrameType.JOINED:
        this.#people.add(frame.user);
        this.#tellPresence();
        break;
      case FrameType.LEFT:
        this.#people.delete(frame.user);
        this.#tellPresence();
        break;
      case FrameType.TYPING:
        this.#handlers.typing(frame.user);
        break;
      case FrameType.ERROR:
        this.#receiveError(frame);
        break;
    }
  }

  #receiveHistory({ messages, sequence, worker }) {
    if (this.#sequence.known === null) {
      this.#oldest = messages.length > 0 ? messages[0].sequence : sequence + 1;
    }
    this.#deliver(this.#sequence.start(messages, sequence));
    if (!this.#joined) {
      this.#joined = true;
      this.#handlers.state({ name: "connected", worker });
      this.#outbox.open();
      this.#tellRead();
    }
  }

  #receiveError(error) {
    if (error.code === ErrorCode.FLOOD) {
      this.#outbox.pause(error.retry_after * 1000);
    } else if (error.client_id !== undefined) {
      // It would be refused again.
      this.#outbox.remove(error.client_id);
    }
    this.#handlers.error(error);
  }

  /** Pass on what is due, and see to what is missing. */
  #deliver(due, { answer = false } = {}) {
    if (due.length > 0) {
      this.#handlers.messages(due);
      for (const { client_id: clientId } of due) {
        this.#outbox.remove(clientId);
      }
    }
    this.#gaps.took({ gap: this.#sequence.gap() !== null, progress: due.length > 0, answer });
  }

  /** Ask for what is missing; return whether more is, or null where nothing is. */
  #askForGap() {
    const gap = this.#sequence.gap();
    if (gap === null) {
      return null;
    }
    const to = Math.min(gap.to, gap.from + HISTORY_PAGE - 1);
    this.#socket.send({ action: Action.HISTORY, from: gap.from, to });
    return to < gap.to;
  }

  #tellPresence() {
    this.#handlers.presence([...this.#people].sort());
  }

  #tellRead() {
    const frame = { action: Action.READ, sequence: this.#read };
    if (this.#read > this.#readTold && this.#joined && this.#socket.send(frame)) {
      this.#readTold = this.#read;
      this.#environment.clearTimeout(this.#readTimer);
      this.#readTimer = this.#environment.setTimeout(() => {
        this.#readTimer = null;
        this.#tellRead();
      }, READ_INTERVAL);
    }
  }

  #refuse(code, error) {
    this.#handlers.error({ code, error });
  }
}
