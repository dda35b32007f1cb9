/**
 * When a client asks for messages that it lacks: the rule of docs/protocol.md, "Gaps". Those who
 * test the cluster have it too, kit/channels_kit/load/gaps.py; a test compares the numbers.
 */

/** The longest wait before the first request, and before any. All in milliseconds. */
export const GAP_DELAY_FIRST = 1000;
export const GAP_DELAY_MOST = 15_000;

/** A request without an answer counts as lost after it. */
export const GAP_ANSWER_TIMEOUT = 10_000;

export class GapRequests {
  #ask;
  #environment;
  /** Runs until the next request, or until the one that was sent counts as lost. */
  #timer = null;
  /** Whether a request has been sent whose answer is still to come. */
  #inFlight = false;
  /** Whether the gap goes on behind what that request asked for. */
  #goesOn = false;
  /** Whether the last answer brought messages, none of which has come by itself since. */
  #helped = false;
  /** Requests since the last one that was of use. */
  #inVain = 0;

  /**
   * @param {() => boolean | null} ask sends a request for the first gap, as far as one request may
   *   reach; returns whether the gap goes on behind that, or null where there is no gap
   * @param {typeof import("./socket.js").browser} environment
   */
  constructor(ask, environment) {
    this.#ask = ask;
    this.#environment = environment;
  }

  /**
   * Take note of a frame.
   * @param {object} frame
   * @param {boolean} frame.gap whether a message is missing now
   * @param {boolean} frame.progress whether the frame led to the delivery of a message
   * @param {boolean} [frame.answer] whether it is the answer to a request
   */
  took({ gap, progress, answer = false }) {
    if (progress && this.#helped && !answer) {
      this.#helped = false;
      this.#inVain = 0;
    }
    if (answer && this.#inFlight) {
      this.#inFlight = false;
      this.#helped = progress;
      this.#cancel();
      if (gap && progress && this.#goesOn) {
        this.#send();
        return;
      }
    }
    if (this.#inFlight) {
      return;
    }
    if (!gap || progress) {
      this.#cancel();
    }
    if (gap && this.#timer === null) {
      this.#wait();
    }
  }

  /** Take note of a message that came by itself and had been delivered before. */
  copied() {
    this.#helped = false;
  }

  /** Forget everything: the socket has ended. */
  stop() {
    this.#cancel();
    this.#inFlight = false;
    this.#helped = false;
    this.#inVain = 0;
  }

  #wait() {
    const most = Math.min(GAP_DELAY_MOST, GAP_DELAY_FIRST * 2 ** this.#inVain);
    // The clients of a room miss the same message in the same moment.
    const delay = most * (0.5 + this.#environment.random() / 2);
    this.#timer = this.#environment.setTimeout(() => this.#send(), delay);
  }

  #send() {
    const goesOn = this.#ask();
    if (goesOn === null) {
      this.#timer = null;
      return;
    }
    this.#goesOn = goesOn;
    this.#inFlight = true;
    this.#inVain += 1;
    this.#timer = this.#environment.setTimeout(() => this.#lost(), GAP_ANSWER_TIMEOUT);
  }

  #lost() {
    this.#inFlight = false;
    this.#wait();
  }

  #cancel() {
    this.#environment.clearTimeout(this.#timer);
    this.#timer = null;
  }
}
