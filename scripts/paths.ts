/** The folders of the project. */
import { homedir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';

export const root = join(import.meta.dirname, '..');

/** The built module: `main` of wrangler.toml. */
export const buildFolder = join(root, 'build');

/** The static assets that are built: `assets.directory` of wrangler.toml. */
export const assetsFolder = join(buildFolder, 'assets');

/** The Edge Function, in the layout of Supabase's tools. */
export const edgeFunctionFolder = join(root, 'supabase/functions/flashcards');

/** Cargo-installed tools of pinned versions; ignored by git. */
export const toolsFolder = join(root, '.tools');

/** The state of `npm run dev`, a folder for each port; ignored by git. */
export const localFolder = join(root, '.local');

/** The example page: an npm project of its own, installed and built only when it is needed. */
export const exampleFolder = join(root, 'examples', 'astro');

/** Pictures of the tests; ignored by git. */
export const testOutputFolder = join(root, 'test-output');

/** A file of an npm package, e.g. `npmPackage("wrangler", "bin/wrangler.js")`. */
export const npmPackage = (name: string, path: string) => join(root, 'node_modules', name, path);

/** A program in `.tools/`. */
export const cargoTool = (name: string) => join(toolsFolder, 'bin', name);

/**
 * The environment for every program that the scripts start: the project's Node is the first `node` on the PATH (npm's
 * programs start with `#!/usr/bin/env node`), and cargo is found in a shell that rustup's installer has not reached yet.
 */
export function programEnvironment(more: Record<string, string> = {}): Record<string, string | undefined> {
  const cargoHome = process.env['CARGO_HOME'] ?? join(homedir(), '.cargo');
  const path = [dirname(process.execPath), process.env['PATH'] ?? '', join(cargoHome, 'bin')].join(delimiter);
  return { ...process.env, PATH: path, ...more };
}
