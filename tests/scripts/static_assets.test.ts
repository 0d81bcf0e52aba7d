// The static assets that `npm run build` makes from src/edge/openapi.json: the document, and the page of GET /docs. Over
// HTTP: tests/service/openapi.ts.

import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { assetsFolder } from '../../scripts/paths.ts';
import { contract } from '../support/contract.ts';

it('the assets are the document and its page alone', async () => {
  assert.deepEqual((await readdir(assetsFolder)).sort(), ['docs.html', 'openapi.json']);
});

it('the built document is the source without white space', async () => {
  assert.equal(await readFile(join(assetsFolder, 'openapi.json'), 'utf8'), JSON.stringify(contract));
});

describe('the page of GET /docs', () => {
  let page: string;
  before(async () => {
    page = await readFile(join(assetsFolder, 'docs.html'), 'utf8');
  });
  const anchors = (id: string) => page.split(` id=${id}>`).length - 1;

  it('the page has an anchor for each code', () => {
    const codes: string[] = contract['components'].schemas.ProblemCode.oneOf.map((row: { const: string }) => row.const);
    assert.ok(codes.length > 20, 'the codes were not found');
    for (const code of codes) assert.equal(anchors(code), 1, code);
  });

  it('the page links to its own anchors only', () => {
    const links = [...page.matchAll(/href=([^>]*)>/g)].map(([, link = '']) => link);
    assert.equal(links.length, page.split('href=').length - 1);
    assert.ok(links.length > 100, 'the links were not found');
    for (const link of links) {
      assert.match(link, /^#/);
      assert.equal(anchors(link.slice(1)), 1, link);
    }
  });

  it('the page loads and runs nothing', () => {
    const tags = page.split('<').map((rest) => `<${rest.split('>')[0]}`);
    for (const never of ['<script', '<link', '<img', '<iframe', '<form', 'src=', 'url(', '@import', 'style=', ' on', 'javascript:']) {
      assert.deepEqual(tags.filter((tag) => tag.includes(never)), [], never);
    }
  });

  it('the page has a style for dark screens', () => {
    assert.match(page, /prefers-color-scheme: ?dark/);
  });

  it('the page has every description and summary of the document', () => {
    const entities: [string, string][] = [['<code>', '`'], ['</code>', '`'], ['&lt;', '<'], ['&gt;', '>'], ['&amp;', '&']];
    const plain = entities.reduce((text, [written, meant]) => text.replaceAll(written, meant), page);
    const missing = textsOf(contract).filter((text) => !text.split('\n\n').every((paragraph) => plain.includes(paragraph)));
    assert.deepEqual(missing, ["Turns a learner's text into flashcards.", 'This service']);
  });
});

/** Every description and summary in a part of the document. */
function textsOf(part: unknown): string[] {
  if (Array.isArray(part)) return part.flatMap(textsOf);
  if (typeof part !== 'object' || part === null) return [];
  const named = Object.entries(part);
  return named.flatMap(([key, member]) => (typeof member === 'string' && ['description', 'summary'].includes(key) ? [member] : textsOf(member)));
}
