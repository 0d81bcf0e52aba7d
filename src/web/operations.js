// The operations of the module outside of it: each is one crossing to begin and one to end, and no callback is made for it. Only
// web standards, so that every host has them.
//
// The module numbers its operations. The number is free again after the end, or after `abandon` or `release`.

/** The module's function that receives the end of an operation: its number, a status, lines of text, bytes, and a value. */
let receive;

/** How to cancel the operations in progress, by their numbers. */
let inProgress = new Map();

const NO_BYTES = new Uint8Array();

/** Connects an instance of the module. The operations of a torn-down one have no end. */
export function connect(callback) {
  receive = callback;
  inProgress = new Map();
}

/** Starts an operation; returns the function that ends it, once. One that `isKept` can be cancelled after its end. */
export function begin(id, cancel, isKept = false) {
  const started = inProgress.set(id, cancel);
  let hasEnded = false;
  return (status, head = '', bytes = NO_BYTES, value = undefined) => {
    if (hasEnded || inProgress !== started || started.get(id) !== cancel) return;
    hasEnded = true;
    if (!isKept) started.delete(id);
    try {
      receive(id, status, head, bytes, value);
    } catch (error) {
      // For the trap guard. Any other error is that of an instance which was torn down.
      if (error instanceof WebAssembly.RuntimeError) reportError(error);
    }
  };
}

/** Cancels an operation. */
export function abandon(id) {
  const cancel = inProgress.get(id);
  inProgress.delete(id);
  cancel?.();
}

/** Ends a connection that was read to its end. */
export const release = (id) => void inProgress.delete(id);

/** Waits for some milliseconds. */
export function timer(id, ms) {
  const end = begin(id, () => clearTimeout(timeout));
  const timeout = setTimeout(() => end(1), ms);
}

/** Waits for a promise: status 1 with its value, or 0. */
export function wait_for(id, promise) {
  const end = begin(id, () => {});
  promise.then((value) => end(1, '', NO_BYTES, value), () => end(0));
}

/** Checks a signature: status 1 when it is valid, 0 when it is not, or when the platform refuses it. */
export async function verify(id, key, algorithm, message, signature) {
  const end = begin(id, () => {});
  try {
    // Copies: the module's memory changes while the platform checks.
    end((await crypto.subtle.verify(algorithm, key, signature.slice(), message.slice())) ? 1 : 0);
  } catch {
    end(0);
  }
}

/** Calls the module in a turn of its own. The number is that of no operation. */
export function turn_later(id) {
  const end = begin(id, () => {});
  queueMicrotask(() => end(1));
}

/** Detaches a promise. */
export const detach = (promise) => void promise.catch(() => {});

/**
 * Sends a request and receives the whole response: its status and its body; 0 without one within `timeoutMs`, or with more than
 * `bytesMax`. The body of a 5xx is not received.
 */
export async function exchange(id, method, url, headers, body, timeoutMs, bytesMax) {
  const controller = new AbortController();
  const end = begin(id, () => {
    clearTimeout(timeout);
    controller.abort();
  });
  // Not left to the abort, which a platform may delay.
  const timeout = setTimeout(() => {
    end(0);
    controller.abort();
  }, timeoutMs);
  try {
    const response = await fetch(url, outgoing(method, headers, body, controller.signal));
    const isReceived = response.status < 500;
    const bytes = isReceived ? await wholeBody(response, bytesMax) : NO_BYTES;
    end(response.status, '', bytes);
    if (!isReceived) controller.abort();
  } catch {
    end(0);
    controller.abort();
  }
  clearTimeout(timeout);
}

/** Sends a request up to the head of its response: the status, the headers of these names, the stream of the body. 0 without one. */
export async function open(id, method, url, headers, body, names) {
  const controller = new AbortController();
  const end = begin(id, () => controller.abort(), true);
  try {
    const response = await fetch(url, outgoing(method, headers, body, controller.signal));
    end(response.status, linesOf(response.headers, names), NO_BYTES, response.body);
  } catch {
    end(0);
  }
}

// The module's memory changes while a request is sent, so its bytes are copied.
const outgoing = (method, headers, body, signal) =>
  ({ method, headers: headersOf(headers), body: body.length > 0 ? body.slice() : undefined, redirect: 'manual', signal });

/** Receives a response of the platform: its status and its body; 0 without one. */
export function receive_response(id, responding) {
  const end = begin(id, () => {});
  const received = responding.then(async (response) => [response.status, new Uint8Array(await response.arrayBuffer())]);
  received.then(([status, bytes]) => end(status, '', bytes), () => end(0));
}

/** Receives the body of a client's request: status 1, or 2 with more than `bytesMax`, or 0 when it was cut. */
export function receive_body(id, request, bytesMax) {
  const end = begin(id, () => {});
  wholeBody(request, bytesMax).then((bytes) => end(1, '', bytes), (error) => end(error === TOO_LARGE ? 2 : 0));
}

const TOO_LARGE = new RangeError('more bytes than allowed');

/** Reads a body: at once where its length is announced, else until there are more bytes than allowed. */
async function wholeBody(message, bytesMax) {
  const { headers } = message;
  // The length of an encoded body is another one.
  const announced = headers.has('content-encoding') ? null : headers.get('content-length');
  if (announced !== null && Number(announced) > bytesMax) throw TOO_LARGE;
  if (announced !== null && Number(announced) <= bytesMax) {
    const bytes = new Uint8Array(await message.arrayBuffer());
    if (bytes.length > bytesMax) throw TOO_LARGE;
    return bytes;
  }
  if (message.body === null) return NO_BYTES;
  const reader = message.body.getReader();
  const chunks = [];
  let length = 0;
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    length += next.value.length;
    if (length > bytesMax) {
      reader.releaseLock(); // for the host that drains the rest
      throw TOO_LARGE;
    }
    chunks.push(next.value);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

/** The head of a client's request, in lines: method, URL, then the headers of these names. */
export const head_of = ({ method, url, headers }, names) => `${method}\n${url}\n${linesOf(headers, names)}`;

/** Resolves the call of a client with a response of bytes. */
export const respond = (resolve, status, headers, body) => finish(resolve, status, headers, body.length > 0 ? body.slice() : null);

/** Resolves the call of a client with a response whose body is a stream, bytes of their own, or absent. */
export function finish(resolve, status, headers, body) {
  try {
    resolve(new Response(body, { status, headers: headersOf(headers) }));
  } catch (error) {
    resolve(Promise.reject(error));
  }
}

/** Writes a chunk to a client: status 1 when it can receive more, 0 when it has left. */
export const write = (id, writer, chunk) => wait_for(id, writer.write(chunk.slice()));

/** Headers, two lines each: the name and the value. */
function linesOf(headers, names) {
  let lines = '';
  for (const name of names.split(' ')) {
    const value = headers.get(name);
    if (value !== null) lines += `${name}\n${value}\n`;
  }
  return lines;
}

/** The opposite, for the platform. workerd takes three times as long to read an array of pairs. */
function headersOf(lines) {
  const parts = lines.split('\n');
  const headers = new Headers();
  for (let n = 0; n + 1 < parts.length; n += 2) headers.append(parts[n], parts[n + 1]);
  return headers;
}
