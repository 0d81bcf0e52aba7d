// Shared by all files here: the service on one of its hosts in its own world, the example page on another origin, a Chromium, and
// common actions of a person on the page.

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { findChromium } from '../../scripts/chromium.ts';
import { testOutputFolder } from '../../scripts/paths.ts';
import { startOnWorkerd } from '../hosts/workerd.ts';
import type { Service, StartService } from '../service/service.ts';
import type { User } from '../support/world.ts';
import { type NetworkProxy, startNetworkProxy } from './network_proxy.ts';
import { type PageServer, startPageServer } from './page_server.ts';

/** A browser without other connections than the page's, with a new profile each time. */
const browserArgs = [
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export type Stage = {
  service: Service;
  /** The proxy between the page and the service. */
  proxy: NetworkProxy;
  pages: PageServer;
  browser: Browser;
  /** Opens a browser with its own storage, shared by its tabs. */
  person(options?: BrowserContextOptions): Promise<BrowserContext>;
};

/** Starts one stage for all tests of the file; the proxy serves the service under the base path. */
export function staged(variables: Record<string, string> = {}, basePath = '', start: StartService = startOnWorkerd): () => Stage {
  let stage: Stage | undefined;
  const closers: (() => Promise<unknown>)[] = [];
  /** Uncaught errors of the page, and refusals of its Content-Security-Policy. */
  const faults: string[] = [];
  before(async () => {
    const pages = await startPageServer();
    closers.push(pages.close);
    const proxy: NetworkProxy = await startNetworkProxy(() => service.url, basePath);
    closers.push(proxy.close);
    const aiSessionsUrl = proxy.url + basePath;
    const publicUrl: Record<string, string> = basePath === '' ? {} : { PUBLIC_URL: aiSessionsUrl };
    const [service, browser] = await Promise.all([start({ ALLOWED_ORIGINS: pages.url, ...publicUrl, ...variables }), launchBrowser()]);
    closers.push(service.close, () => browser.close());
    const { supabaseUrl, anonKey } = service.world;
    pages.serve({ aiSessionsUrl, supabaseUrl, supabaseAnonKey: anonKey });
    const person = async (options: BrowserContextOptions = {}) => {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
      context.setDefaultTimeout(WAIT_MS);
      context.on('weberror', (error) => faults.push(String(error.error())));
      context.on('console', (message) => {
        if (message.text().includes('Content Security Policy')) faults.push(message.text());
      });
      // Inserted past the page's Content-Security-Policy, which stays in force.
      await context.addInitScript({ content: axeSource });
      return context;
    };
    stage = { service, proxy, pages, browser, person };
  });
  after(async () => {
    for (const close of closers.toReversed()) await close();
    assert.deepEqual(faults, [], 'faults of the page');
  });
  return () => {
    assert.ok(stage, 'the stage runs during the tests');
    return stage;
  };
}

/** Long enough for two cores that compile something else; an action that hangs fails. */
const WAIT_MS = 20_000;

const axeSource = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

async function launchBrowser(): Promise<Browser> {
  const executablePath = await findChromium();
  assert.ok(executablePath, 'a Chromium (`npm test` finds or installs one)');
  return chromium.launch({ executablePath, headless: true, chromiumSandbox: false, args: browserArgs });
}

/** Opens a tab of a signed-in user, or another tab of the same person. */
export async function openSignedIn(stage: Stage, options?: BrowserContextOptions): Promise<{ tab: Page; user: User }> {
  const [user, person] = await Promise.all([stage.service.world.auth.createUser(), stage.person(options)]);
  const tab = await open(stage, person);
  await signIn(tab, user);
  return { tab, user };
}

export async function open(stage: Stage, person: BrowserContext, hash = ''): Promise<Page> {
  const tab = await person.newPage();
  await tab.goto(stage.pages.url + hash);
  return tab;
}

export async function signIn(tab: Page, { email, password }: User): Promise<void> {
  await tab.getByLabel('Email address').fill(email ?? '');
  await tab.getByLabel('Password').fill(password ?? '');
  await tab.getByRole('button', { name: 'Sign in' }).click();
  await modelsLoaded(tab);
}

export const modelsLoaded = (tab: Page) => tab.locator('#model:enabled').waitFor();

export const textBox = (tab: Page) => tab.getByRole('textbox', { name: 'Text to learn' });
export const button = (tab: Page, name: string) => tab.getByRole('button', { name, exact: true });
export const cards = (tab: Page) => tab.locator('#cards article');

export async function make(tab: Page, text: string): Promise<void> {
  await textBox(tab).fill(text);
  await button(tab, 'Make cards').click();
}

/** Waits until the results are in that state. */
export const phase = (tab: Page, name: 'empty' | 'opening' | 'generating' | 'done' | 'failed' | 'failed-before') =>
  tab.locator(`#results[data-phase="${name}"]`).waitFor();

/** Waits for that many cards. */
export const cardsAre = (tab: Page, number: number) =>
  tab.waitForFunction((wanted) => document.querySelectorAll('#cards article').length === wanted, number);

/** Waits until an element has that text. */
export async function says(tab: Page, selector: string, words: RegExp | string): Promise<void> {
  await tab.locator(selector).filter({ hasText: words }).waitFor();
}

/** The findings of axe-core on the page, by rule, with the elements. */
export async function expectAccessible(tab: Page, state: string): Promise<void> {
  // Elements that fade in have a different contrast meanwhile.
  await tab.evaluate(() => Promise.all(document.getAnimations().filter(({ effect }) => effect?.getComputedTiming().endTime !== Infinity).map(({ finished }) => finished)));
  const found = await tab.evaluate(async () => {
    const { violations } = await (globalThis as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { target: unknown; failureSummary: string }[] }[] }> } }).axe.run();
    return violations.map(({ id, nodes }) => ({ id, nodes: nodes.map(({ target, failureSummary }) => `${target}: ${failureSummary}`) }));
  });
  assert.deepEqual(found, [], `axe, ${state}`);
}

/** Saves a picture under test-output/. */
export async function picture(tab: Page, name: string): Promise<void> {
  await mkdir(testOutputFolder, { recursive: true });
  await tab.screenshot({ path: join(testOutputFolder, `${name}.png`), animations: 'disabled' });
}
