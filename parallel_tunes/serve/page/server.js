// What the server is asked, and its refusals in words.

/** Why there is no answer, in a sentence for people. */
export class Refusal extends Error {}

const sentence = text => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");

async function ask(path, options) {
  let answer, said;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer: it may have stopped, or the connection broke. Try again.");
  }
  try {
    said = await answer.json();
  } catch {
    throw new Refusal(`The server answers with status ${answer.status} and no sentence. Try again.`);
  }
  if (!answer.ok) throw new Refusal(sentence(said.error));
  return said;
}

/** What is served, and within what limits. */
export const describe = () => ask("version");

/** The labels of a file, its timeline and its levels. */
export async function judge(file, classes, signal) {
  const form = new FormData();
  form.append("file", file, file.name);
  const answer = await ask(`v1/genre?top_k=${Math.min(classes.length, 1000)}&levels=true`, { method: "POST", body: form, signal });
  return answer.files[0];
}

/** The answer to each row of a CSV. */
export async function judgeRows(task, file, signal) {
  const options = { method: "POST", body: file, headers: { "Content-Type": "text/csv" }, signal };
  return (await ask(`v1/${task}`, options)).rows;
}

/** A socket for sound as it comes. */
export function openStream() {
  const address = new URL("v1/stream?levels=true", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  return new WebSocket(address);
}

/** The sentence for a file that is too large to be sent; none where it is not. */
export function refuseSize(file, maxBytes, limit) {
  if (file.size <= maxBytes) return null;
  const mib = bytes => (bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 });
  return `${file.name} has ${mib(file.size)} MiB, and this server takes ${mib(maxBytes)} MiB at most (${limit}).`;
}

/** What is told of an error that a file has met. */
export function explain(error, file) {
  return error instanceof Refusal ? `${file.name}: ${error.message}` : sentence(`this page has made a mistake (${error.message})`);
}

export { sentence };
