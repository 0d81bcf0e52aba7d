/**
 * Makes the page of `GET /docs` from the OpenAPI document: HTML without a script, which loads nothing.
 *
 * The page has the order of the document, and no other content.
 */

/** An OpenAPI document, or a part of one. */
type Json = { [member: string]: any };

const methods = ['post', 'get', 'delete'];

/** One method of one path. */
type Operation = { path: string; item: Json; method: string };

/** Makes the page, with that style in its head. */
export function docsPage(document: Json, style: string): string {
  const { info, tags } = document;
  const operations = operationsOf(document);
  const css = style
    .split('\n')
    .map((line) => line.trim())
    .join('');
  const parts = [
    '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">',
    `<title>${info.title}: the API</title><style>${css}</style>`,
    `<header><h1>${info.title} <small>${info.version}</small></h1>${paragraphs(info.description)}</header>`,
    contents(operations),
  ];
  for (const { name, description } of tags) {
    parts.push(`<h2>${capital(name)}</h2>${paragraphs(description)}`);
    const ofTag = operations.filter(({ item, method }) => item[method].tags[0] === name);
    parts.push(...ofTag.map((operation) => operationSection(document, operation)));
  }
  parts.push(`<h2>Every request</h2><dl>${parametersOf(document, operations[0]?.item)}</dl>`, '<h2>Every answer</h2>');
  const { 'x-every-answer': everyAnswer, 'x-other-requests': otherRequests, components } = document;
  parts.push(paragraphs(everyAnswer.description), headerLinks(everyAnswer.headers));
  parts.push(paragraphs(otherRequests.description), responseList(document, otherRequests.responses));
  parts.push('<h2 id=errors>Errors</h2>', paragraphs(components.schemas.Problem.description));
  parts.push(exampleDetails(components.examples.validation_failed), problemCodes(components));
  parts.push('<h2 id=documents>Documents</h2>');
  for (const [name, schema] of members(components.schemas)) if (name !== 'ProblemCode') parts.push(schemaSection(name, schema));
  parts.push('<h2 id=headers>Headers of answers</h2><dl>');
  for (const [name, { description, example }] of members(components.headers)) {
    parts.push(`<div id=header-${name}><dt><code>${name}</code><dd>${paragraphs(description)}<p><code>${escaped(shown(example))}</code></div>`);
  }
  return `${parts.join('')}</dl>`;
}

function operationsOf({ paths }: Json): Operation[] {
  return members(paths).flatMap(([path, item]) => methods.filter((method) => item[method] !== undefined).map((method) => ({ path, item, method })));
}

function contents(operations: Operation[]): string {
  const links = operations.map(({ path, item, method }) => {
    const { operationId, summary } = item[method];
    return `<li><a href=#${operationId}><code>${method.toUpperCase()} ${path}</code></a> <span>${escaped(summary)}</span>`;
  });
  return `<nav><ul>${links.join('')}<li><a href=#errors>Errors</a>, <a href=#documents>documents</a>, <a href=#headers>headers</a></ul></nav>`;
}

function operationSection(document: Json, { path, item, method }: Operation): string {
  const { operationId, summary, description, security, parameters, requestBody, responses } = item[method];
  const parts = [
    `<section><h3 id=${operationId}>${escaped(summary)}</h3><p><code>${method.toUpperCase()} ${path}</code></p>${paragraphs(description)}`,
  ];
  if (security !== undefined) {
    parts.push(`<h4>Authorization: Bearer</h4>${paragraphs(document['components'].securitySchemes.accessToken.description)}`);
  }
  const inPath = (item['parameters'] ?? []).filter((parameter: Json) => resolved(document, parameter)['in'] === 'path');
  const rows = parametersOf(document, { parameters: [...inPath, ...(parameters ?? [])] });
  if (rows !== '') parts.push(`<h4>Parameters</h4><dl>${rows}</dl>`);
  if (requestBody !== undefined) {
    const { schema, examples } = requestBody.content['application/json'];
    parts.push(`<h4>Body</h4><p>${kind(schema)}, <code>application/json</code>.</p>${paragraphs(requestBody.description)}`);
    parts.push(exampleList(document, examples));
  }
  return `${parts.join('')}<h4>Answers</h4>${responseList(document, responses)}</section>`;
}

function parametersOf(document: Json, item: Json | undefined): string {
  const rows = (item?.['parameters'] ?? []).map((parameter: Json) => {
    const { name, in: place, schema, description } = resolved(document, parameter);
    return `<div><dt><code>${name}</code> <span>${place}</span><dd><small>${kind(schema)}</small>${paragraphs(description)}</div>`;
  });
  return rows.join('');
}

function responseList(document: Json, responses: Json): string {
  const rows = members(responses).map(([status, reference]) => {
    const response = resolved(document, reference);
    let [content, examples] = ['', ''];
    for (const [mediaType, body] of members(response['content'])) {
      const codes: string[] = body['schema'].properties?.code?.enum ?? [];
      if (codes.length === 0) {
        content += `<p>${kind(body['schema'])}, <code>${mediaType}</code>.</p>`;
        examples = exampleList(document, body['examples']);
      } else {
        content += `<p>${codes.map((code) => `<a href=#${code}><code>${code}</code></a>`).join(', ')}</p>`;
      }
    }
    return `<div><dt>${status}<dd>${paragraphs(response['description'])}${content}${headerLinks(response['headers'])}${examples}</div>`;
  });
  return `<dl>${rows.join('')}</dl>`;
}

/** Headers, each by a link. */
function headerLinks(headers: Json | undefined): string {
  const links = members(headers).map(([name]) => `<a href=#header-${name}>${name}</a>`);
  return links.length === 0 ? '' : `<p><small>${links.join(', ')}</small></p>`;
}

function exampleList(document: Json, examples: Json | undefined): string {
  return members(examples)
    .map(([, example]) => exampleDetails(resolved(document, example)))
    .join('');
}

function exampleDetails({ summary = 'Example', value }: Json): string {
  return `<details><summary>${summary}</summary><pre>${escaped(shown(value, 2).trimEnd())}</pre></details>`;
}

/** Every code with its anchor, its status, its meaning and the action for it. */
function problemCodes({ schemas, examples }: Json): string {
  const rows = schemas.ProblemCode.oneOf.map(({ const: code, title, description }: Json) => {
    const example = members(examples).find(([, { value }]) => value.code === code);
    if (example === undefined) throw new Error(`openapi.json has no example of ${code}`);
    return `<div id=${code}><dt><code>${code}</code> <span>${example[1]['value'].status}</span><dd><p>${escaped(title)}: ${marked(description)}.</div>`;
  });
  return `<dl>${rows.join('')}</dl>`;
}

function schemaSection(name: string, schema: Json): string {
  const parts = [`<h3 id=${name}>${name}</h3>${paragraphs(schema['description'])}`];
  const rows: string[] = [];
  for (const part of [...(schema['allOf'] ?? []), schema]) {
    if (part['$ref'] !== undefined) parts.push(`<p>All of ${kind(part)}, and:</p>`);
    for (const [member, memberSchema] of members(part['properties'])) {
      const optional = part['required']?.includes(member) ? '' : ' <span>where it helps</span>';
      rows.push(`<div><dt><code>${member}</code>${optional}<dd><small>${kind(memberSchema)}</small>${paragraphs(memberSchema['description'])}</div>`);
    }
  }
  for (const [event, data] of members(schema['x-events'])) rows.push(`<div><dt><code>${event}</code><dd>${kind(data)}</div>`);
  parts.push(rows.length === 0 ? `<p>${kind(schema)}</p>` : `<dl>${rows.join('')}</dl>`);
  return parts.join('');
}

/** The values that a schema allows, in words. */
function kind(schema: Json): string {
  const name: string | undefined = schema['$ref']?.split('/').at(-1);
  if (name !== undefined) return `<a href=#${name === 'ProblemCode' ? 'errors' : name}>${name}</a>`;
  if (schema['const'] !== undefined) return `<code>${schema['const']}</code>`;
  if (schema['enum'] !== undefined) return schema['enum'].map((value: string) => `<code>${value}</code>`).join(', ');
  if (schema['oneOf'] !== undefined) return schema['oneOf'].map(kind).join(', ');
  const types: string = [schema['type'] ?? ''].flat().join(', ');
  const named = schema['format'] === undefined ? types : types.replaceAll('string', schema['format']);
  const unit = types === 'string' ? ' characters' : '';
  const items = schema['items'] === undefined ? '' : ` of ${kind(schema['items'])}`;
  const standard = schema['default'] === undefined ? '' : `, default ${JSON.stringify(schema['default'])}`;
  return `${named}${items}${range(schema, unit)}${standard}`;
}

function range(schema: Json, unit: string): string {
  const [min, max] = [schema['minLength'] ?? schema['minimum'], schema['maxLength'] ?? schema['maximum']];
  if (min !== undefined && max !== undefined) return `, ${min} to ${max}${unit}`;
  if (min !== undefined) return `, ${min} or more${unit}`;
  return max === undefined ? '' : `, at most ${max}${unit}`;
}

/** The target of a reference, or the value itself. */
function resolved(document: Json, value: Json): Json {
  const pointer: string | undefined = value['$ref'];
  if (pointer === undefined) return value;
  const keys = pointer.split('/').slice(1);
  const target = keys.reduce((parent, key) => parent?.[key.replaceAll('~1', '/').replaceAll('~0', '~')], document as Json | undefined);
  if (target === undefined) throw new Error(`openapi.json has nothing at ${pointer}`);
  return target;
}

const members = (object: Json | undefined): [string, Json][] => Object.entries(object ?? {});

/** A string as it is, any other value as JSON. */
const shown = (value: unknown, indent = 0) => (typeof value === 'string' ? value : JSON.stringify(value, null, indent));

const capital = (word: string) => word.slice(0, 1).toUpperCase() + word.slice(1);

/** The paragraphs of a description. */
function paragraphs(description = ''): string {
  const all = description.split('\n\n').filter((paragraph) => paragraph !== '');
  return all.map((paragraph) => `<p>${marked(paragraph)}</p>`).join('');
}

/** A line in which back quotes mark code: the only Markdown of the document. */
function marked(line: string): string {
  const parts = escaped(line).split('`');
  return parts.map((part, index) => (index % 2 === 0 ? part : `<code>${part}</code>`)).join('');
}

const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
