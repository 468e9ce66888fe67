// The microphone: its sound goes to the server as it comes, and to whoever draws it.

import { Refusal, openStream, sentence } from "./server.js";

const MOST_UNSENT = 1 << 20; // bytes, 5 s at 48 kHz: a connection that is slower than sound
const PLAIN = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }; // music, not speech
const REASONS = {
  NotAllowedError: "The browser was not allowed to use the microphone: allow it in the address bar, and try again.",
  NotFoundError: "No microphone was found on this device.",
  NotReadableError: "The microphone cannot be used now: another program may have it.",
};

/** `hear(samples)` and `answer(message)` as they come; `end(sentence)` once, null where it ended as it should. */
export class Microphone {
  constructor({ hear, answer, end }) {
    Object.assign(this, { hear, answer, end, isOpen: false, problem: null });
  }

  /** Begins; the rate of the samples, Hz. */
  async start(maxStreams) {
    if (!navigator.mediaDevices || !window.AudioWorklet) {
      throw new Refusal("A browser gives a page its microphone only over https, or from this machine: open the page as http://127.0.0.1, through an ssh tunnel say.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: PLAIN });
    } catch (error) {
      throw new Refusal(REASONS[error.name] ?? `The microphone cannot be used (${error.message}).`);
    }
    try {
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
      await this.#connect(maxStreams);
    } catch (error) {
      this.#release();
      throw error;
    }
    this.source = this.context.createMediaStreamSource(this.stream);
    this.node = new AudioWorkletNode(this.context, "capture");
    this.node.port.onmessage = ({ data }) => this.#send(data);
    this.source.connect(this.node);
    return this.context.sampleRate;
  }

  /** Resolves with the server's greeting; before it, a refusal is a closed socket without a word. */
  #connect(maxStreams) {
    const socket = (this.socket = openStream());
    return new Promise((resolve, reject) => {
      socket.onopen = () => socket.send(JSON.stringify({ sample_rate_hz: this.context.sampleRate, format: "f32" }));
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.error) this.problem = sentence(message.error);
        else if (this.isOpen) this.answer(message);
        else {
          this.isOpen = true;
          resolve();
        }
      };
      socket.onclose = ({ wasClean }) => {
        if (!this.isOpen) {
          reject(new Refusal(this.problem ?? `The server takes no stream now: it may have as many as it takes (${maxStreams}), or have stopped.`));
          return;
        }
        this.#release();
        this.end(this.problem ?? (wasClean && this.isEnding ? null : "The connection to the server broke: what was heard until then is below."));
      };
    });
  }

  #send(samples) {
    if (this.isEnding || this.socket.readyState !== WebSocket.OPEN) return;
    if (this.socket.bufferedAmount > MOST_UNSENT) {
      this.problem = "The connection is too slow for sound as it comes: record a file and give that instead.";
      this.socket.close();
      return;
    }
    this.socket.send(samples);
    this.hear(samples);
  }

  /** Ends; the server still answers to the rest. */
  stop() {
    if (this.isEnding) return;
    this.isEnding = true;
    this.stream.getTracks().forEach(track => track.stop());
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send("end");
  }

  #release() {
    this.stream.getTracks().forEach(track => track.stop());
    if (this.context && this.context.state !== "closed") this.context.close();
    this.socket?.close();
  }
}
