// A track, from a file or the microphone: what it is, when, and what it looks like.

import { drawBars, MOST_ROWS, paintTimeline, rowsHeight } from "./charts.js";
import { byId, make, tabulate, takeFile } from "./elements.js";
import { Microphone } from "./microphone.js";
import { imageLevels, paintLegend, paintSpectrogram, paintWaveform, Panel, tellPercent } from "./panels.js";
import { explain, judge, refuseSize, sentence } from "./server.js";
import { decode, makeExample, outline, outlineLive } from "./sound.js";

const WAVEFORM_HEIGHT = 84, SPECTROGRAM_HEIGHT = 190; // pixels
const LIVE_S = 30; // of the microphone that are drawn
const LIVE_EVERY_MS = 120; // they are drawn anew
const MOST_MOMENTS = 3600; // of the microphone that are kept: the last hour
const FORM_BYTES = 4096; // what a form adds to its file, and more

const exact = share => (100 * share).toFixed(1);
const seconds = s => `${+s.toFixed(1)} s`;

export class TrackTab {
  constructor({ models, limits }) {
    Object.assign(this, { model: models.genre, limits, classes: models.genre.classes, work: null, live: null });
    this.player = byId("player");
    const seek = s => (this.player.currentTime = s);
    this.panels = ["waveform", "spectrogram", "timeline"].map(name => new Panel(byId(name), seek));
    [this.waveform, this.spectrogram, this.timeline] = this.panels;
    new ResizeObserver(() => this.entries && this.#drawBars()).observe(byId("bars"));
    paintLegend(byId("legend"));
    this.#tellLimits();
    takeFile(byId("genre").querySelector(".drop"), byId("file"), file => this.judge(file), words => this.fail(words));
    byId("example").addEventListener("click", () => this.judge(makeExample()));
    byId("microphone").addEventListener("click", () => (this.live ? this.live.stop() : this.listen()));
    this.#followPlayer();
    for (const name of ["timeline", "bars"]) {
      byId(`${name}-numbers`).addEventListener("toggle", () => this.#tabulate());
    }
  }

  #tellLimits() {
    const { max_mib, max_seconds } = this.limits, { clip_s, kind } = this.model.features, isPicture = kind === "picture";
    const heard = clip_s && !isPicture ? ` Of each track the first ${clip_s} s are judged.` : "";
    const what = isPicture ? "A picture of a spectrogram" : "WAV, FLAC, OGG, MP3, AU, AIFF";
    byId("limits").textContent = `${what}; up to ${max_mib} MiB${isPicture ? "" : ` and ${max_seconds / 60} min`}.${heard}`;
    if (isPicture) {
      byId("file").accept = "image/*";
      for (const name of ["microphone", "example"]) byId(name).hidden = true;
    }
  }

  fail(words) {
    byId("genre-status").textContent = "";
    byId("genre-error").textContent = words;
  }

  #begin(name) {
    this.work?.abort();
    this.live?.stop();
    this.work = new AbortController();
    this.player.pause();
    byId("genre-error").textContent = "";
    byId("result").hidden = true;
    this.entries = this.told = null;
    this.panels.forEach(panel => panel.clear());
    byId("bars").replaceChildren();
    byId("name").textContent = name;
    byId("note").textContent = "";
    return this.work.signal;
  }

  /** A file: what the server answers first; its waveform follows. */
  async judge(file) {
    const problem = refuseSize(file, (this.limits.max_mib << 20) - FORM_BYTES, `serve.max_mib=${this.limits.max_mib}`);
    const signal = this.#begin(file.name);
    if (problem) return this.fail(problem);
    byId("genre-status").textContent = `Judging ${file.name} …`;
    try {
      const answer = await judge(file, this.classes, signal);
      if (signal.aborted) return;
      this.#take(file, answer);
      await this.#look(file, signal);
    } catch (error) {
      if (error.name !== "AbortError") this.fail(explain(error, file));
    }
  }

  #take(file, { duration_s, note, windows, levels }) {
    const centre = window => (window.start_s + window.end_s) / 2, last = windows.length - 1;
    // windows overlap: each tells of the time that is nearest to its centre
    const between = at => (centre(windows[at]) + centre(windows[at + 1])) / 2;
    const moments = windows.map(({ probabilities }, at) => ({
      from_s: at ? between(at - 1) : windows[0].start_s, to_s: at < last ? between(at) : windows[last].end_s, probabilities,
    }));
    this.span = { from_s: 0, to_s: windows[last].end_s };
    URL.revokeObjectURL(this.player.src);
    this.player.src = URL.createObjectURL(file);
    this.player.hidden = false;
    byId("waveform-figure").hidden = true;
    byId("result").hidden = false;
    this.#drawLevels([imageLevels(levels, 0, this.span.to_s)]);
    const part = this.span.to_s < duration_s - 0.05 ? `the first ${seconds(this.span.to_s)} of ${seconds(duration_s)}` : seconds(duration_s);
    const count = windows.length === 1 ? "one window" : `${windows.length} windows`;
    byId("note").textContent = `Judged: ${part}, in ${count} of ${seconds(this.model.window_s)}.${note ? ` ${note}.` : ""}`;
    this.#tell(moments, `mean of ${count}`);
    this.#announce(file.name, this.entries);
  }

  /** The waveform, where this browser can decode what the server can. */
  async #look(file, signal) {
    const rateHz = this.model.features.sample_rate_hz;
    let samples;
    try {
      samples = await decode(file, rateHz);
    } catch {
      this.player.hidden = true;
      byId("note").textContent += " This browser cannot play such a file; the server has read it.";
      return;
    }
    if (signal.aborted) return;
    byId("waveform-figure").hidden = false;
    this.#drawWaveform(outline(samples.subarray(0, Math.ceil(this.span.to_s * rateHz)), rateHz));
  }

  #drawWaveform(found) {
    this.waveform.show(this.span, WAVEFORM_HEIGHT, `Waveform of ${byId("name").textContent}`, paintWaveform(found));
  }

  #drawLevels(images) {
    const words = `Mel spectrogram of ${byId("name").textContent}`;
    this.spectrogram.show(this.span, SPECTROGRAM_HEIGHT, words, paintSpectrogram(images, this.model.edges_hz));
  }

  /** Labels, timeline and bars; `moments` are {from_s, to_s, probabilities}. */
  #tell(moments, of, now = null) {
    const { thresholds } = this.model; // of models by which a track may have several labels
    const means = this.classes.map((_, k) => moments.reduce((sum, { probabilities }) => sum + probabilities[k], 0) / moments.length);
    const order = means.map((_, k) => k).sort((a, b) => means[b] - means[a]);
    this.told = { moments, order, means };
    this.entries = order.map((k, place) => ({
      label: this.classes[k], probability: means[k], threshold: thresholds?.[k],
      isBest: thresholds ? means[k] >= thresholds[k] : place === 0,
    }));
    const best = now ?? this.entries.filter(({ isBest }) => isBest);
    byId("verdict").replaceChildren(...(best.length ? best.flatMap(({ label, probability }, k) => [
      k ? ", " : "", label, make("small", {}, ` ${tellPercent(probability)}`),
    ]) : ["No label reaches its threshold"]));
    const which = order.length > MOST_ROWS ? ` of the ${MOST_ROWS} labels that have most` : "";
    byId("timeline-caption").textContent = `probability${which}; coloured where a label has most`;
    byId("bars-caption").textContent = of + (thresholds ? "; coloured from its threshold (the line) on" : "");
    this.#drawTimeline();
    this.#drawBars();
    if (!now) this.#tabulate(); // while it goes on, a table would run away from who reads it
  }

  #drawTimeline() {
    const { moments, order, means } = this.told, rows = order.slice(0, MOST_ROWS);
    const visible = moments.filter(({ to_s }) => to_s > this.span.from_s);
    const words = `Probabilities over time: ${this.#words(this.entries.slice(0, 3))}; numbers in the table below`;
    this.timeline.show(this.span, rowsHeight(rows.length), words, paintTimeline(this.classes, visible, rows, means));
  }

  #drawBars() {
    drawBars(byId("bars"), this.entries, `Probabilities: ${this.#words(this.entries.slice(0, 3))}; numbers in the table below`);
  }

  #words(entries) {
    return entries.map(({ label, probability }) => `${label} ${tellPercent(probability)}`).join(", ");
  }

  #announce(name, top) {
    const then = top.length > 1 ? ` Then ${this.#words(top.slice(1, 3))}.` : "";
    byId("genre-status").textContent = `${name}: ${this.#words(top.slice(0, 1))}.${then}`;
  }

  /** The same in numbers; only where it is looked at, since it may be long. */
  #tabulate() {
    if (!this.told) return;
    const { moments, order } = this.told, percent = title => ({ title: `${title}, %` });
    const build = {
      timeline: () => tabulate("Probabilities over time", [{ title: "from, s" }, { title: "to, s" }, ...order.map(k => percent(this.classes[k]))],
        moments.map(({ from_s, to_s, probabilities }) => [from_s.toFixed(2), to_s.toFixed(2), ...order.map(k => exact(probabilities[k]))])),
      bars: () => tabulate("Mean probabilities", [{ title: "label", isText: true }, percent("probability")],
        this.entries.map(({ label, probability }) => [label, exact(probability)])),
    };
    for (const [name, table] of Object.entries(build)) {
      const details = byId(`${name}-numbers`);
      details.querySelector(".scroll")?.remove();
      if (details.open) details.append(table());
    }
  }

  /** The microphone, until it is stopped. */
  async listen() {
    const button = byId("microphone"), signal = this.#begin("Microphone"), moments = [], images = [];
    let drawn = null, timer = null, best = null;
    this.player.hidden = true;
    byId("genre-status").textContent = "Asking for the microphone …";
    const live = (this.live = new Microphone({
      hear: samples => drawn?.feed(samples),
      answer: message => {
        if (signal.aborted) return;
        if (message.reason) {
          byId("note").textContent = sentence(message.reason);
          return;
        }
        byId("note").textContent = `Now: the last ${seconds(message.heard_s)}. Below: all that was heard.`;
        moments.push({ from_s: Math.max(message.at_s - 1, moments.at(-1)?.to_s ?? 0), to_s: message.at_s, probabilities: message.probabilities });
        moments.splice(0, moments.length - MOST_MOMENTS);
        images.push(imageLevels(message.levels, message.at_s - message.heard_s, message.at_s));
        images.splice(0, images.length - LIVE_S - 1); // one a second
        this.#tell(moments, `mean of ${moments.length} answers, one a second`, message.labels ?? message.top.slice(0, 1));
        if (message.top[0].label !== best) this.#announce(`At ${Math.round(message.at_s)} s`, message.top); // more would be chatter
        best = message.top[0].label;
      },
      end: words => {
        clearInterval(timer);
        if (this.live === live) this.live = null;
        button.textContent = "Use the microphone";
        if (signal.aborted) return;
        if (words) this.fail(words);
        else if (moments.length) {
          byId("note").textContent = `Judged: ${seconds(moments.at(-1).to_s)}, once a second.`;
          this.#tell(moments, `mean of ${moments.length} answers, one a second`);
          this.#announce("All in all", this.entries);
        }
        else byId("genre-status").textContent = "The microphone is off; it was on too briefly for an answer.";
      },
    }));
    try {
      const rateHz = await live.start(this.limits.streams);
      drawn = outlineLive(rateHz, LIVE_S);
    } catch (error) {
      this.live = null;
      return this.fail(error.message);
    }
    button.textContent = "Stop the microphone";
    byId("verdict").textContent = "Listening …";
    byId("genre-status").textContent = "Listening: the first answer comes after a second.";
    byId("result").hidden = false;
    byId("waveform-figure").hidden = false;
    this.span = { from_s: 0, to_s: LIVE_S };
    timer = setInterval(() => {
      const until = (drawn.first + drawn.columns.length) * drawn.columnS;
      this.span = { from_s: Math.max(until - LIVE_S, 0), to_s: Math.max(until, LIVE_S) };
      this.#drawWaveform(drawn);
      this.#drawLevels(images);
      if (this.told) this.#drawTimeline();
    }, LIVE_EVERY_MS);
  }

  #followPlayer() {
    const { player } = this;
    const follow = () => {
      const at_s = player.paused && !player.currentTime ? null : player.currentTime;
      this.panels.forEach(panel => panel.follow(at_s));
      if (!player.paused) requestAnimationFrame(follow);
    };
    for (const name of ["play", "seeked", "pause", "ended"]) player.addEventListener(name, follow);
  }
}
