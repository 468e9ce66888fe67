// Rows of a CSV, all at once: of users and songs, or of tracks.

import { drawBars, drawHistogram } from "./charts.js";
import { make, tabulate, takeFile } from "./elements.js";
import { explain, judgeRows, refuseSize } from "./server.js";

const SHOWN = 100; // rows in the page; the file that is offered has all
const ROW_BYTES = 1024; // of a posted row, on average: the server's bound

const TASKS = {
  relisten: {
    lead: "Drop a CSV of users and songs here, or",
    says: "Columns msno and song_id; where they are known also source_system_tab, source_screen_name, source_type, and id. The answer to each row: how probable it is that this user plays this song again within a month.",
  },
  popularity: {
    lead: "Drop a CSV of tracks here, or",
    says: "The columns that the model was trained with: the answer names those that are missing.",
  },
};

export class RowsTab {
  constructor(task, { limits }) {
    Object.assign(this, { task, limits, work: null, redraw: null });
    const { lead, says } = TASKS[task];
    const input = make("input", { type: "file", accept: ".csv,text/csv", id: `${task}-file`, "aria-describedby": `${task}-says` });
    const choose = make("label", { class: "button" }, input, make("span", {}, "Choose a CSV"));
    const bound = `Up to ${limits.max_rows.toLocaleString("en")} rows.`;
    const drop = make("div", { class: "drop" }, make("p", { class: "lead" }, lead), make("div", { class: "buttons" }, choose),
      make("p", { class: "soft", id: `${task}-says` }, `${says} ${bound}`));
    this.error = make("p", { class: "bad", role: "alert" });
    this.status = make("p", { class: "status", role: "status" });
    this.result = make("article", { hidden: "" });
    this.place = document.getElementById(task);
    this.place.append(drop, this.error, this.status, this.result);
    takeFile(drop, input, file => this.judge(file), words => this.fail(words));
    new ResizeObserver(() => this.redraw?.()).observe(this.result);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw?.());
  }

  fail(words) {
    this.status.textContent = "";
    this.error.textContent = words;
  }

  async judge(file) {
    this.work?.abort();
    const { signal } = (this.work = new AbortController());
    this.error.textContent = "";
    this.result.hidden = true;
    const { max_rows } = this.limits, problem = refuseSize(file, max_rows * ROW_BYTES, `1 KiB for each of serve.max_rows=${max_rows}`);
    if (problem) return this.fail(problem);
    this.status.textContent = `Judging the rows of ${file.name} …`;
    try {
      const rows = await judgeRows(this.task, file, signal);
      if (!signal.aborted) this.#show(file.name, rows);
    } catch (error) {
      if (error.name !== "AbortError") this.fail(explain(error, file));
    }
  }

  #show(name, rows) {
    const good = rows.filter(row => !row.reason), bad = rows.length - good.length;
    const chart = make("div", { class: "panel" }), caption = make("figcaption");
    this.redraw = this.#choose(good, chart, caption);
    const columns = this.#columns(rows), link = make("a", { download: `${name.replace(/\.csv$/i, "")}-answers.csv`, class: "button" }, "Save all answers as CSV");
    URL.revokeObjectURL(this.saved);
    link.href = this.saved = URL.createObjectURL(new Blob([toCsv(columns, rows)], { type: "text/csv" }));
    const first = rows.length > SHOWN ? `The first ${SHOWN} of ${rows.length} answers` : "The answers";
    this.result.replaceChildren(
      make("h2", {}, name), make("figure", {}, caption, chart), make("p", {}, link), make("h2", {}, first),
      tabulate(first, columns, rows.slice(0, SHOWN).map(row => columns.map(({ read }) => read(row)))),
    );
    this.result.hidden = false;
    this.redraw?.();
    const without = bad ? `; ${bad} have none, and say why` : "";
    this.status.textContent = `${name}: ${good.length} of ${rows.length} rows have an answer${without}.${this.summary}`;
  }

  /** The chart that fits the answers; how to draw it, and a summary in words. */
  #choose(good, chart, caption) {
    this.summary = "";
    if (!good.length) return null;
    if (good[0].top) {
      const counts = new Map();
      good.forEach(({ top }) => counts.set(top[0].label, (counts.get(top[0].label) ?? 0) + 1));
      const entries = [...counts].map(([label, count]) => ({ label, probability: count / good.length, isBest: false }));
      entries.sort((a, b) => b.probability - a.probability);
      caption.replaceChildren(make("b", {}, "Labels"), " share of the rows");
      return () => drawBars(chart, entries, "Share of the rows by their most probable label", "share of rows, %");
    }
    const isChance = good[0].probability !== undefined, numbers = good.map(row => (isChance ? 100 * row.probability : row.popularity));
    const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length, axis = isChance ? "probability, %" : "popularity, 0 to 100";
    this.summary = ` Mean ${isChance ? `probability ${mean.toFixed(1)} %` : `popularity ${mean.toFixed(1)}`}.`;
    caption.replaceChildren(make("b", {}, "Distribution"), ` rows by ${isChance ? "the probability of another listen" : "popularity"}`);
    return () => drawHistogram(chart, numbers, 0, 100, axis);
  }

  #columns(rows) {
    const has = name => rows.some(row => row[name] !== undefined), best = row => row.top?.[0];
    return [
      { title: "row", read: row => String(row.row) },
      has("id") && { title: "id", isText: true, read: row => row.id ?? "" },
      has("probability") && { title: "probability", read: row => row.probability?.toFixed(4) ?? "" },
      has("popularity") && { title: "popularity", read: row => row.popularity?.toFixed(1) ?? "" },
      has("top") && { title: "label", isText: true, read: row => best(row)?.label ?? "" },
      has("top") && { title: "its probability", read: row => best(row)?.probability.toFixed(4) ?? "" },
      has("unseen") && { title: "not seen in training", isText: true, read: row => row.unseen?.join(", ") ?? "" },
      has("reason") && { title: "why there is no answer", isText: true, read: row => row.reason ?? "" },
    ].filter(Boolean);
  }
}

function toCsv(columns, rows) {
  const quote = text => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [columns.map(({ title }) => title), ...rows.map(row => columns.map(({ read }) => read(row)))];
  return lines.map(cells => `${cells.map(quote).join(",")}\r\n`).join("");
}
