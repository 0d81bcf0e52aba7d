/** Reads and validates the body of `POST /ai-sessions`. */
import { Problem } from './problem.js';

const BODY_BYTES_MAX = 256 * 1024;
const LENGTH = { min: 1000, max: 10_000 };
const FIELDS = ['input_text', 'model'];
const CONTROLS = /[\0-\x08\x0b-\x1f\x7f]/g;
const PAIRS = /[\ud800-\udbff][\udc00-\udfff]/g;

/** Returns the session's fields, or the errors of the body: a request that is counted, and no more. */
export async function readNewSession(request, models) {
  const body = parsed(await readText(request));
  const errors = [];
  const add = (field, code, message, more) => errors.push({ field, code, message, ...more });
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return { errors: [{ field: '', code: 'type', message: 'the body must be an object' }] };
  for (const field of FIELDS) {
    if (body[field] === undefined) add(field, 'required', 'is required');
    else if (typeof body[field] !== 'string') add(field, 'type', 'must be a string');
  }
  for (const field of Object.keys(body)) if (!FIELDS.includes(field)) add(field, 'unknown', 'is not a field of this request');
  if (errors.length > 0) return { errors };
  const input_text = clean(body.input_text);
  const actual = codePoints(input_text);
  if (actual < LENGTH.min || actual > LENGTH.max) add('input_text', 'length', `has ${actual} characters, ${LENGTH.min} to ${LENGTH.max} are allowed`, { ...LENGTH, actual });
  if (!models.includes(body.model)) add('model', 'not_allowed', 'is not an allowed model, see GET /models');
  return errors.length > 0 ? { errors } : { input_text, model: body.model };
}

/** Removes control characters and the space around the text. */
export const clean = (text) => text.replace(CONTROLS, '').trim();

export const codePoints = (text) => text.length - (text.match(PAIRS)?.length ?? 0);

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Problem('malformed_json', 'the body is not JSON');
  }
}

/** Checks the limit before the read where the length is announced, else while reading. */
async function readText(request) {
  const announced = request.headers.get('content-length');
  if (announced !== null && Number(announced) <= BODY_BYTES_MAX) return request.text();
  const decoder = new TextDecoder();
  let [text, bytes] = ['', announced === null ? 0 : Number(announced)];
  for await (const chunk of bytes > BODY_BYTES_MAX ? [] : request.body ?? []) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) break;
    text += decoder.decode(chunk, { stream: true });
  }
  if (bytes > BODY_BYTES_MAX) throw new Problem('body_too_large', `a body has at most ${BODY_BYTES_MAX} bytes`);
  return text + decoder.decode();
}
