// The call of a user object and its storage: one crossing each.

import { begin, wait_for } from '../web/operations.js';

/** Sends a command: status 1 with the text and the body of the reply, 0 without a reply, 2 when the object is overloaded. */
export async function execute(id, environment, name, command) {
  const end = begin(id, () => {});
  try {
    // A copy: a view would be sent with all of the module's memory.
    const { text, body } = await environment.USER_SESSIONS.getByName(name).execute(command.slice());
    end(1, String(text), undefined, body);
  } catch (error) {
    end(error?.overloaded ? 2 : 0);
  }
}

/** Resolves the call of a user object with a reply, and bytes as the body of the response. */
export const reply = (resolve, text, body) => resolve({ text, body: body.length > 0 ? body.slice() : null });

/** The same with a stream. */
export const reply_stream = (resolve, text, body) => resolve({ text, body });

/**
 * Runs statements, each of which ends with U+001E and has each of its values after U+001F: all of them or none. Returns whether they
 * have succeeded. Values are texts: columns of integers convert theirs.
 */
export function store(storage, statements) {
  const all = statements.split('\x1e').slice(0, -1);
  const run = (statement) => void storage.sql.exec(...statement.split('\x1f'));
  try {
    // A single statement without a transaction of its own is one, too.
    if (all.length === 1) run(all[0]);
    else storage.transactionSync(() => all.forEach(run));
    return true;
  } catch {
    return false;
  }
}

/** Reads rows: U+001E after each, U+001F between its values. A value that is no text is empty. `undefined` when the query fails. */
export function select(storage, query) {
  const text = (value) => (typeof value === 'string' ? value : '');
  try {
    return [...storage.sql.exec(query).raw()].map((row) => `${row.map(text).join('\x1f')}\x1e`).join('');
  } catch {
    return undefined;
  }
}

/** Calls the storage at once; an exception is a rejection. */
const call = async (operation) => operation();

/** Sets the alarm of the object: status 1 when it is set. */
export const set_alarm = (id, storage, after_ms) => wait_for(id, call(() => storage.setAlarm(Date.now() + after_ms)));

/** Deletes all that the storage contains: status 1 when it is deleted. */
export const delete_all = (id, storage) => wait_for(id, call(() => storage.deleteAll()));

/** Writes a data point to the binding METRICS: texts, separated by U+001F, and figures. Returns whether there is such a binding. */
export function measure(environment, texts, figures) {
  const dataset = environment.METRICS;
  const blobs = texts.split('\x1f');
  try {
    dataset?.writeDataPoint({ indexes: blobs.slice(0, 1), blobs, doubles: [...figures] });
  } catch {
    // A refused point fails no request.
  }
  return dataset !== undefined;
}

/** The spans in progress, by their numbers, and the last number. */
const spans = new Map();
let lastSpan = 0;

/**
 * Begins a span of the current trace. Returns its number; 0 where no trace is sampled, or the runtime has no such spans. A span that
 * fails costs no generation.
 */
export function begin_span(tracing, name) {
  try {
    const span = tracing?.startActiveSpan?.(name, (span) => span);
    if (!span?.isTraced) return 0;
    spans.set(++lastSpan, span);
    return lastSpan;
  } catch {
    return 0;
  }
}

/** Ends a span. */
export function end_span(number) {
  const span = spans.get(number);
  spans.delete(number);
  try {
    span?.end();
  } catch {
    // As above.
  }
}
