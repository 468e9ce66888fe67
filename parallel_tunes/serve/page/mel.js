// The model's log-mel spectrogram, as parallel_tunes/audio/definition.py has it: Hann window, power, mel bands of equal
// area, decibels. What is drawn is what the model hears; only the server's own numbers are judged.

const FLOOR = 1e-10; // of power, as in librosa's power_to_db

// Slaney's mel scale: linear below 1 kHz, logarithmic above
const BREAK_HZ = 1000, BREAK_MEL = 15, STEP = Math.log(6.4) / 27;
const SCALES = {
  slaney: {
    toMel: hz => (hz < BREAK_HZ ? (3 * hz) / 200 : BREAK_MEL + Math.log(hz / BREAK_HZ) / STEP),
    toHz: mel => (mel < BREAK_MEL ? (200 * mel) / 3 : BREAK_HZ * Math.exp(STEP * (mel - BREAK_MEL))),
  },
  htk: {
    toMel: hz => 2595 * Math.log10(1 + hz / 700),
    toHz: mel => 700 * (10 ** (mel / 2595) - 1),
  },
};

/** A radix-2 FFT, in place: Cooley and Tukey 1965. */
class Fft {
  constructor(size) {
    this.size = size;
    this.cosines = Float64Array.from({ length: size / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this.sines = Float64Array.from({ length: size / 2 }, (_, k) => -Math.sin((2 * Math.PI * k) / size));
    const bits = Math.log2(size);
    this.places = Uint32Array.from({ length: size }, (_, k) => {
      let place = 0;
      for (let bit = 0; bit < bits; bit++) place |= ((k >> bit) & 1) << (bits - 1 - bit);
      return place;
    });
  }

  transform(real, imaginary) {
    const { size, cosines, sines, places } = this;
    for (let k = 0; k < size; k++) {
      const place = places[k];
      if (place > k) {
        [real[k], real[place]] = [real[place], real[k]];
        [imaginary[k], imaginary[place]] = [imaginary[place], imaginary[k]];
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const a = start + k, b = a + half, c = cosines[k * stride], s = sines[k * stride];
          const re = real[b] * c - imaginary[b] * s, im = real[b] * s + imaginary[b] * c;
          real[b] = real[a] - re;
          imaginary[b] = imaginary[a] - im;
          real[a] += re;
          imaginary[a] += im;
        }
      }
    }
  }
}

/** Levels of mel bands, for sound at any rate: a window lasts as long as at the model's own. */
export class LogMel {
  constructor(features, rateHz) {
    const { sample_rate_hz, n_fft, num_mels, fmin_hz, fmax_hz, mel_scale } = features;
    this.span = Math.round((n_fft * rateHz) / sample_rate_hz); // samples of a window
    this.numBands = num_mels;
    this.scale = SCALES[mel_scale];
    this.low = this.scale.toMel(fmin_hz);
    this.high = this.scale.toMel(fmax_hz ?? sample_rate_hz / 2);
    this.fft = new Fft(2 ** Math.ceil(Math.log2(this.span)));
    this.real = new Float64Array(this.fft.size);
    this.imaginary = new Float64Array(this.fft.size);
    this.window = Float64Array.from({ length: this.span }, (_, k) => 0.5 - 0.5 * Math.cos((2 * Math.PI * k) / this.span));
    this.bands = this.#bands(rateHz);
  }

  /** Triangles of equal area between neighbouring centres, each as the first bin it takes and its weights. */
  #bands(rateHz) {
    const edges = Array.from({ length: this.numBands + 2 }, (_, k) =>
      this.scale.toHz(this.low + ((this.high - this.low) * k) / (this.numBands + 1)));
    const { size } = this.fft, hz = bin => (bin * rateHz) / size;
    return Array.from({ length: this.numBands }, (_, band) => {
      const [left, centre, right] = edges.slice(band, band + 3);
      const first = Math.ceil((left * size) / rateHz), last = Math.min(Math.floor((right * size) / rateHz), size / 2);
      const weights = [];
      for (let bin = first; bin <= last; bin++) {
        const height = Math.max(Math.min((hz(bin) - left) / (centre - left), (right - hz(bin)) / (right - centre)), 0);
        weights.push((height * 2 * this.span) / ((right - left) * size)); // a longer FFT has more bins to a band
      }
      return { first, weights };
    });
  }

  /** Decibels of each band in the window that begins at samples[start]. */
  levels(samples, start) {
    const { real, imaginary, span, window, fft } = this;
    real.fill(0);
    imaginary.fill(0);
    for (let k = 0; k < span; k++) real[k] = samples[start + k] * window[k];
    fft.transform(real, imaginary);
    return Float32Array.from(this.bands, ({ first, weights }) => {
      let power = 0;
      weights.forEach((weight, k) => (power += weight * (real[first + k] ** 2 + imaginary[first + k] ** 2)));
      return 10 * Math.log10(Math.max(power, FLOOR));
    });
  }

  /** Where a frequency lies between the lowest edge (0) and the highest (1). */
  place(hz) {
    return (this.scale.toMel(hz) - this.low) / (this.high - this.low);
  }
}

/** What is drawn of a sound that comes in pieces: columns, each its lowest and highest sample and its mel levels. */
export class Sketch {
  /** `step`: samples of a column; `most`: columns that are kept, the last ones. */
  constructor(mel, rateHz, step, most = Infinity) {
    Object.assign(this, { mel, step, most, columnS: step / rateHz, columns: [], first: 0 });
    this.half = mel.span >> 1;
    this.held = new Float32Array(this.half); // before the first sample there is silence
  }

  feed(samples) {
    const { mel, step, half } = this, held = new Float32Array(this.held.length + samples.length);
    held.set(this.held);
    held.set(samples, this.held.length);
    let at = 0; // where the window of the next column begins; the column itself begins half a window later
    for (; at + Math.max(mel.span, half + step) <= held.length; at += step) {
      let low = Infinity, high = -Infinity;
      for (let k = at + half; k < at + half + step; k++) {
        low = Math.min(low, held[k]);
        high = Math.max(high, held[k]);
      }
      this.columns.push({ low, high, levels: mel.levels(held, at) });
    }
    this.held = held.slice(at);
    const surplus = this.columns.length - this.most;
    if (surplus > 0) {
      this.columns.splice(0, surplus);
      this.first += surplus;
    }
  }
}
