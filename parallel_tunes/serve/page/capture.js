// In the browser's audio thread: what the microphone hears, mono, in pieces that are worth a message.

const PIECE = 2048;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
  }

  process([channels]) {
    if (!channels.length) return true;
    const num = channels[0].length;
    for (let k = 0; k < num; k++) {
      let sum = 0;
      for (const channel of channels) sum += channel[k];
      this.piece[this.filled++] = sum / channels.length;
      if (this.filled === PIECE) {
        this.port.postMessage(this.piece);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
