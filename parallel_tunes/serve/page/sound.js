// Sound in memory: a file decoded by the browser, and the example, which is made here note by note.

const MOST_COLUMNS = 1600; // that a picture can show
const LIVE_COLUMN_S = 0.025;
const EXAMPLE_RATE_HZ = 22050;

/** Mono samples of a file at a rate; an error where this browser does not know the format. */
export async function decode(file, rateHz) {
  const buffer = await new OfflineAudioContext(1, 1, rateHz).decodeAudioData(await file.arrayBuffer());
  const mono = buffer.getChannelData(0);
  for (let channel = 1; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((sample, k) => (mono[k] += sample));
  }
  return buffer.numberOfChannels > 1 ? mono.map(sample => sample / buffer.numberOfChannels) : mono;
}

/** The lowest and highest sample of each column of a sound that comes in pieces; only the last `most` columns are kept. */
class Outline {
  constructor(rateHz, step, most = Infinity) {
    Object.assign(this, { step, most, columnS: step / rateHz, columns: [], first: 0, num: 0, low: Infinity, high: -Infinity });
  }

  feed(samples) {
    for (const sample of samples) {
      this.low = Math.min(this.low, sample);
      this.high = Math.max(this.high, sample);
      if (++this.num === this.step) this.finish();
    }
    const surplus = this.columns.length - this.most;
    if (surplus > 0) {
      this.columns.splice(0, surplus);
      this.first += surplus;
    }
  }

  /** Ends a column, full or not. */
  finish() {
    if (this.num) this.columns.push({ low: this.low, high: this.high });
    Object.assign(this, { num: 0, low: Infinity, high: -Infinity });
  }
}

/** The outline of all samples. */
export function outline(samples, rateHz) {
  const found = new Outline(rateHz, Math.ceil(samples.length / MOST_COLUMNS));
  found.feed(samples);
  found.finish();
  return found;
}

/** The outline of the last seconds of a sound, as it comes. */
export function outlineLive(rateHz, seconds) {
  return new Outline(rateHz, Math.round(LIVE_COLUMN_S * rateHz), Math.ceil(seconds / LIVE_COLUMN_S));
}

/** Sixteen seconds of generated tones, two pieces of unlike music, as a WAV file. */
export function makeExample() {
  const rateHz = EXAMPLE_RATE_HZ, samples = new Float32Array(16 * rateHz);
  const noise = makeNoise();
  for (let beat = 0; beat < 16; beat++) { // eight seconds at 120 a minute, with drums and short chords
    const at = beat / 2;
    addKick(samples, at * rateHz, rateHz);
    addHiss(samples, (at + 0.25) * rateHz, 0.05, 0.25, noise, rateHz);
    if (beat % 2) addHiss(samples, at * rateHz, 0.14, 0.5, noise, rateHz);
    const root = [45, 45, 41, 43][beat >> 2];
    addTone(samples, at + 0.25, 0.22, root - 12, 0.5, rateHz);
    for (const step of [12, 15, 19]) addTone(samples, at + 0.25, 0.3, root + step, 0.16, rateHz);
  }
  for (let bar = 0; bar < 4; bar++) { // eight seconds of broken chords in three time
    const root = [48, 53, 55, 48][bar];
    for (let beat = 0; beat < 3; beat++) {
      const at = 8 + bar * 2 + (beat * 2) / 3;
      addTone(samples, at, 1.2, beat ? root + 12 : root - 12, 0.3, rateHz);
      for (const step of beat ? [16, 19] : []) addTone(samples, at, 0.6, root + step, 0.2, rateHz);
    }
    addTone(samples, 8 + bar * 2, 1.8, root + 28, 0.15, rateHz);
  }
  return new File([encodeWav(samples, rateHz)], "example.wav", { type: "audio/wav" });
}

/** Noise that is the same each time: a linear congruential generator (Press et al., Numerical Recipes). */
function makeNoise() {
  let state = 1;
  return () => (state = (Math.imul(1664525, state) + 1013904223) >>> 0) / 2 ** 31 - 1;
}

function addTone(samples, start_s, duration_s, note, gain, rateHz) {
  const hz = 440 * 2 ** ((note - 69) / 12), first = Math.round(start_s * rateHz), num = Math.round(duration_s * rateHz);
  for (let k = 0; k < num && first + k < samples.length; k++) {
    const s = k / rateHz, shape = Math.min(s / 0.01, 1) * Math.exp((-2.5 * s) / duration_s) * Math.min((num - k) / 400, 1);
    let value = 0;
    for (let harmonic = 1; harmonic <= 6; harmonic++) value += Math.sin(2 * Math.PI * hz * harmonic * s) / harmonic ** 1.4;
    samples[first + k] += gain * shape * value;
  }
}

function addKick(samples, first, rateHz) {
  for (let k = 0; k < 0.22 * rateHz; k++) {
    const s = k / rateHz, phase = 50 * s + 3 * (1 - Math.exp(-s / 0.025));
    samples[Math.round(first) + k] += 0.8 * Math.exp(-s / 0.08) * Math.sin(2 * Math.PI * phase);
  }
}

function addHiss(samples, first, duration_s, gain, noise, rateHz) {
  for (let k = 0; k < duration_s * rateHz; k++) {
    samples[Math.round(first) + k] += gain * Math.exp((-4 * k) / (duration_s * rateHz)) * noise();
  }
}

function encodeWav(samples, rateHz) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const write = (at, text) => [...text].forEach((letter, k) => bytes.setUint8(at + k, letter.charCodeAt(0)));
  write(0, "RIFF");
  bytes.setUint32(4, 36 + 2 * samples.length, true);
  write(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true); // PCM
  bytes.setUint16(22, 1, true); // mono
  bytes.setUint32(24, rateHz, true);
  bytes.setUint32(28, 2 * rateHz, true);
  bytes.setUint16(32, 2, true);
  bytes.setUint16(34, 16, true);
  write(36, "data");
  bytes.setUint32(40, 2 * samples.length, true);
  const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  samples.forEach((sample, k) => bytes.setInt16(44 + 2 * k, Math.round((sample / peak) * 29000), true));
  return bytes.buffer;
}
