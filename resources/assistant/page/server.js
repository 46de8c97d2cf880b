/** The calls to the server that the page comes from. Each throws an Error whose message a person can read. */

const UNREACHABLE = "The server cannot be reached. Is it still running?";

/** The response to a call; what the server refused is thrown with the server's own words, but for `taken` statuses. */
async function call(path, options, taken = []) {
  const response = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error(UNREACHABLE);
  });
  if (!response.ok && !taken.includes(response.status)) throw new Error(await refusal(response));
  return response;
}

/** Why a call was refused, whatever form the body has. */
async function refusal(response) {
  const body = await response.json().catch(() => null);
  return body?.error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
}

export const get = async (path) => (await call(path)).json();

export const post = (path, body, signal) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

/** Delete what a path names; what is not there any more needs no deleting. */
export const remove = (path) => call(path, { method: "DELETE" }, [404]);

/** The chunks of a streamed answer as they arrive. Throws where the stream has an error, or breaks off. */
export async function* chunks(request, signal) {
  const response = await post("v1/chat/completions", request, signal);
  for await (const line of lines(response.body)) {
    if (!line.startsWith("data:")) continue;
    const data = line.slice("data:".length).trim();
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    yield chunk;
  }
  throw new Error("The answer broke off: the server ended the connection.");
}

/** The lines of a body; a piece from the network may hold several, or end in the middle of one. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const found = (rest + value).split(/\r?\n/);
    rest = found.pop();
    yield* found;
  }
}
