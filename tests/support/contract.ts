// Compares responses with src/edge/openapi.json. Every response in the service's tests is checked here, so that all are
// described.

import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { isComment, parseStream } from './event_stream.ts';

export type Json = { [member: string]: any };

export const contract = JSON.parse(readFileSync(new URL('../../src/edge/openapi.json', import.meta.url), 'utf8')) as Json;

/** The response to a request. */
export type Received = { status: number; headers: Headers; text: string };

/** A described response and its pointer in the document. */
export type Described = { pointer: string; response: Json };

// The document is more than schemas: its other members are unknown keywords.
const ajv = new Ajv2020({ strict: false, allErrors: true });
addFormats.default(ajv);
ajv.addSchema(contract, 'openapi.json');

/** Lists the deviations of the response to a request; empty if there are none. */
export function deviations(method: string, path: string, received: Received): string[] {
  const answers = answersTo(method, path);
  const answer = answers[received.status];
  if (answer === undefined) return [`status ${received.status} is not described, only ${Object.keys(answers).join(', ')}`];
  return [...headerDeviations(answer.response, received.headers), ...bodyDeviations(answer, received)];
}

/** The described responses to a request, by status. */
export function answersTo(method: string, path: string): Record<string, Described> {
  const [plain = ''] = path.split('?');
  const pattern = Object.keys(contract['paths']).find((pattern) => new RegExp(`^${pattern.replace('{id}', '[^/]+')}$`).test(plain));
  const name = method.toLowerCase();
  const known = pattern !== undefined && contract['paths'][pattern][name] !== undefined;
  if (known) return resolvedAll(`#/paths/${escaped(pattern)}/${name}/responses`);
  const other = resolvedAll('#/x-other-requests/responses');
  const status = method === 'OPTIONS' ? '204' : pattern === undefined ? '404' : '405';
  return { [status]: other[status] as Described };
}

function resolvedAll(pointer: string): Record<string, Described> {
  return Object.fromEntries(Object.keys(at(pointer)).map((key) => [key, resolved(`${pointer}/${escaped(key)}`)]));
}

function resolved(pointer: string): Described {
  const response = at(pointer);
  return response['$ref'] === undefined ? { pointer, response } : resolved(response['$ref']);
}

/** Resolves a JSON pointer (RFC 6901) with its `#`. */
export function at(pointer: string): Json {
  const keys = pointer.split('/').slice(1);
  return keys.reduce((value, key) => value[key.replaceAll('~1', '/').replaceAll('~0', '~')], contract);
}

const escaped = (key: string) => key.replaceAll('~', '~0').replaceAll('/', '~1');

/** Lists the deviations of a value from the schema at that pointer. */
export function schemaDeviations(pointer: string, value: unknown): string[] {
  const validate = ajv.getSchema(`openapi.json${encodeURI(pointer)}`);
  if (validate === undefined) return [`there is no schema ${pointer}`];
  if (validate(value)) return [];
  return (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath || 'it'} ${message}`);
}

/** They belong to the connection, or are the key of `content`. */
const UNDESCRIBED = ['connection', 'content-encoding', 'content-length', 'content-type', 'date', 'keep-alive', 'transfer-encoding'];

function headerDeviations(response: Json, headers: Headers): string[] {
  const described = new Map<string, string>(
    Object.entries<Json>({ ...contract['x-every-answer'].headers, ...response['headers'] }).map(([name, ref]) => [name.toLowerCase(), ref['$ref']]),
  );
  const undescribed = [...headers.keys()].filter((name) => !described.has(name) && !UNDESCRIBED.includes(name));
  const found = undescribed.map((name) => `the header ${name} is not described`);
  for (const [name, pointer] of described) {
    const value = headers.get(name);
    if (value === null) {
      if (at(pointer)['required'] === true) found.push(`the header ${name} is missing`);
      continue;
    }
    const typed = at(pointer)['schema'].type === 'integer' ? Number(value) : value;
    found.push(...schemaDeviations(`${pointer}/schema`, typed).map((deviation) => `the header ${name}: ${deviation}`));
  }
  return found;
}

function bodyDeviations({ pointer, response }: Described, { headers, text }: Received): string[] {
  const [mediaType = ''] = (headers.get('content-type') ?? '').split(';');
  if (response['content'] === undefined) return text === '' ? [] : ['no body is described'];
  const described = response['content'][mediaType];
  if (described === undefined) return [`the media type ${mediaType} is not described`];
  if (mediaType === 'text/event-stream') return streamDeviations(text);
  const value: unknown = mediaType.endsWith('json') ? JSON.parse(text) : text;
  return schemaDeviations(`${pointer}/content/${escaped(mediaType)}/schema`, value);
}

function streamDeviations(stream: string): string[] {
  const described: Record<string, Json> = contract['components'].schemas.EventStream['x-events'];
  return parseStream(stream).flatMap((item) => {
    if (isComment(item)) return item.comment === '' ? [] : [`the comment "${item.comment}" is not described`];
    const { id, event, data } = item;
    const schema = described[event]?.['$ref'];
    const wrong = schema === undefined ? ['is not described'] : schemaDeviations(schema, data);
    return wrong.map((deviation) => `the event ${id} ${event}: ${deviation}`);
  });
}
