/**
 * `npm run build`: builds the parts of a deployment: the release module (the JavaScript of each host and one `.wasm`, with
 * worker-build) and the static assets into build/, and from them the Edge Function into supabase/functions/.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';
import { build as bundle } from 'esbuild';
import { type CargoTool, ensureBuildTools } from './cargo_tools.ts';
import { docsPage } from './docs_page.ts';
import { assetsFolder, buildFolder, cargoTool, edgeFunctionFolder, npmPackage, root } from './paths.ts';
import { run } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, messageOf, runScript, step } from './steps.ts';
import { emptyFunctions } from './wasm_functions.ts';
import { shortenImports } from './wasm_imports.ts';

/** The fingerprint of the inputs of build/; written last, so that an interrupted build does not count. */
const stampFile = join(buildFolder, '.built-from');

/** The sources of the static assets. */
const assetSources = { document: join(root, 'src/edge/openapi.json'), style: join(root, 'src/edge/docs.css') };

/** Brings all parts up to date, in a fraction of a second if no input has changed. */
export async function build(): Promise<void> {
  await buildModule();
  await buildAssets();
  await assembleEdgeFunction();
}

/** Writes the assets: `openapi.json` without white space, and the page made from it. */
async function buildAssets(): Promise<void> {
  const [text, style] = await Promise.all([readFile(assetSources.document, 'utf8'), readFile(assetSources.style, 'utf8')]);
  const document = parsedDocument(text);
  await mkdir(assetsFolder, { recursive: true });
  await Promise.all([writeAsset('openapi.json', JSON.stringify(document)), writeAsset('docs.html', docsPage(document, style))]);
}

function parsedDocument(text: string): Parameters<typeof docsPage>[0] {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Failure(`src/edge/openapi.json is no JSON: ${messageOf(error)}`);
  }
}

const writeAsset = (name: string, text: string) => writeChanged(assetsFolder, name, Buffer.from(text));

/** The files of the Edge Function beside its committed `index.ts`, and what they are made from. */
const edgeFunctionFiles = {
  'ai_sessions.js': join(buildFolder, 'ai_sessions.js'),
  'ai_sessions_bg.wasm': join(buildFolder, 'index_bg.wasm'),
  'docs.html': join(assetsFolder, 'docs.html'),
  'openapi.json': join(assetsFolder, 'openapi.json'),
};

/** Completes the folder that `supabase functions deploy` uploads: it takes no file from outside of it. */
async function assembleEdgeFunction(): Promise<void> {
  for (const [name, source] of Object.entries(edgeFunctionFiles)) await writeChanged(edgeFunctionFolder, name, await readFile(source));
}

/** Writes a changed file only, whole: a running `wrangler dev` reloads at each write. */
async function writeChanged(folder: string, name: string, bytes: Buffer): Promise<void> {
  const file = join(folder, name);
  const present = await readFile(file).catch(() => undefined);
  if (present?.equals(bytes)) return;
  const unfinished = join(buildFolder, `.${name}`);
  await writeFile(unfinished, bytes);
  await rename(unfinished, file);
}

async function buildModule(): Promise<void> {
  await ensureRustToolchain();
  const tools = await ensureBuildTools();
  const stamp = await readFile(stampFile, 'utf8').catch(() => '');
  if (stamp === (await fingerprint(tools))) return;
  await step('building the release module into build/ (worker-build)', async () => {
    const start = Date.now();
    await rm(stampFile, { force: true });
    const { ok, output } = await run(cargoTool('worker-build'), ['--release'], {
      // With all three set it downloads nothing.
      env: {
        WASM_BINDGEN_BIN: join(root, 'scripts/wasm_bindgen.mjs'),
        AI_SESSIONS_WASM_BINDGEN: cargoTool('wasm-bindgen'),
        WASM_OPT_BIN: npmPackage('binaryen', 'bin/wasm-opt'),
        ESBUILD_BIN: join(root, 'scripts/esbuild.mjs'),
        AI_SESSIONS_ESBUILD: npmPackage('esbuild', 'bin/esbuild'),
        // Its own backtrace does not show an error in the crate.
        RUST_BACKTRACE: '0',
        ...(process.stderr.isTTY ? { CARGO_TERM_COLOR: 'always' } : {}),
      },
    });
    if (!ok) {
      // worker-build would wait for the build that this folder seems to belong to.
      await rm(join(buildFolder, '.tmp'), { recursive: true, force: true });
      process.stderr.write(output);
      throw new Failure("The module could not be built: see the compiler's message above.");
    }
    await shortenNames();
    await bundleEdgeFunction();
    await bundleWorker();
    await emptyUnusedFunctions();
    await stripNames();
    // A file that was saved while the compiler ran may not be in the module: then the next build compiles again.
    if (!(await changedSince(start))) await writeFile(stampFile, await fingerprint(tools));
  });
}

/** Shortens the names of the module's imports, in both files of wasm-bindgen. */
async function shortenNames(): Promise<void> {
  const [module, entry] = [join(buildFolder, 'index_bg.wasm'), join(buildFolder, 'index.js')];
  const shortened = shortenImports(await readFile(module), await readFile(entry, 'utf8'));
  await Promise.all([writeFile(module, shortened.wasm), writeFile(entry, shortened.script)]);
}

/** Makes the JavaScript of Supabase Edge from the output of wasm-bindgen, whose module only Cloudflare imports as a file. */
async function bundleEdgeFunction(): Promise<void> {
  const folder = join(root, 'src/supabase_edge');
  const replaced = new Map([
    ['wasm-bindgen', join(buildFolder, 'index.js')],
    ['./index_bg.wasm', join(folder, 'wasm_module.js')],
  ]);
  await bundle({
    entryPoints: [join(folder, 'edge_function.js')],
    inject: [join(folder, 'transform_stream.js')],
    outfile: join(buildFolder, 'ai_sessions.js'),
    bundle: true,
    format: 'esm',
    minify: true,
    logLevel: 'error',
    plugins: [
      {
        name: 'replaced',
        setup: ({ onResolve }) => onResolve({ filter: /^(wasm-bindgen|\.\/index_bg\.wasm)$/ }, ({ path }) => ({ path: replaced.get(path) ?? path })),
      },
    ],
  }).catch(() => {
    throw new Failure("The JavaScript of the Edge Function could not be built: see esbuild's message above.");
  });
}

/** Makes the JavaScript of Cloudflare, in place of the output of wasm-bindgen. */
async function bundleWorker(): Promise<void> {
  const entry = join(buildFolder, 'index.js');
  const { ok, output } = await run(npmPackage('esbuild', 'bin/esbuild'), [
    join(root, 'src/cloudflare/worker.js'),
    `--alias:wasm-bindgen=${entry}`,
    '--bundle',
    '--format=esm',
    '--minify',
    '--external:./index_bg.wasm',
    '--external:cloudflare:*',
    `--outfile=${entry}`,
    '--allow-overwrite',
    '--log-level=error',
  ]);
  if (ok) return;
  process.stderr.write(output);
  throw new Failure("The JavaScript of the Worker could not be built: see esbuild's message above.");
}

/**
 * Classes that worker and wasm-streams export to JavaScript. No Rust code here creates one: without their exports the
 * optimizer removes their code, 3 KB gzipped.
 */
const unusedClasses = ['intounderlying', 'minifyconfig', 'r2range', 'containerstartupoptions'];

/**
 * The bodies of functions that the linker keeps, although nothing calls them or they do nothing. The promises and tasks of js-sys are
 * those of the classes above alone (the crate may not use them: clippy.toml); pointers to them are in tables, so no optimizer removes them.
 * worker's panic hook calls that of the standard library, which writes to a stderr that this target does not have. Only functions
 * whose code is unlike any other may be here: the compiler merges equal ones under the name of one of them.
 */
const emptiedBody = (name: string) =>
  /^js_sys::futures::(future_to_promise::\{\{closure\}\}|queue::Queue::(new|schedule_task)\b)/.test(name) ? 'trap' : /^<std\S*::panicking::default_hook as /.test(name) ? 'nothing' : undefined;

/** Empties those functions. The optimizer then removes what only they call. */
async function emptyUnusedFunctions(): Promise<void> {
  const module = join(buildFolder, 'index_bg.wasm');
  await writeFile(module, emptyFunctions(await readFile(module), emptiedBody));
}

/**
 * Removes the names of functions: 30 KB gzipped that only a stack trace would use. Before that it sorts the functions by name:
 * adjacent functions then resemble each other, which saves 3 KB gzipped. A second pass for size may assume that no data is in the first
 * kilobyte: the linker puts the stack there. Exception handling is not enabled: Deno 2.1 refuses it.
 */
async function stripNames(): Promise<void> {
  const module = join(buildFolder, 'index_bg.wasm');
  const features = ['mutable-globals', 'sign-ext', 'nontrapping-float-to-int', 'bulk-memory', 'multivalue', 'reference-types'].map((name) => `--enable-${name}`);
  const removals = unusedClasses.map((name) => `--remove-exports=*${name}*`);
  const { ok, output } = await run(npmPackage('binaryen', 'bin/wasm-opt'), [
    module,
    ...features,
    ...removals,
    '--low-memory-unused',
    '-Os',
    '--reorder-functions-by-name',
    '--strip-debug',
    '--strip-producers',
    '-o',
    module,
  ]);
  if (ok) return;
  process.stderr.write(output);
  throw new Failure("The names could not be removed from the module: see wasm-opt's message above.");
}

async function fingerprint(tools: CargoTool[]): Promise<string> {
  const hash = createHash('sha256');
  for (const { crate, version } of tools) hash.update(`${crate} ${version}\n`);
  for (const file of await inputs()) hash.update(`${file}\n`).update(await readFile(file));
  return hash.digest('hex');
}

async function changedSince(time: number): Promise<boolean> {
  const changes = await Promise.all((await inputs()).map(async (file) => (await stat(file)).mtimeMs > time));
  return changes.includes(true);
}

/** All inputs of the module: the crate, its includes from outside src/ (cargo's list), the npm tools. */
async function inputs(): Promise<string[]> {
  const sources = (await readdir(join(root, 'src'), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => !Object.values(assetSources).includes(file));
  const targetFolder = process.env['CARGO_TARGET_DIR'] ?? join(root, 'target');
  const listed = await readFile(join(targetFolder, 'wasm32-unknown-unknown/release/ai_sessions.d'), 'utf8').catch(() => '');
  const included = listed.split(/(?<!\\)\s+/).slice(1).map((file) => file.replaceAll('\\ ', ' '));
  const settings = ['Cargo.toml', 'Cargo.lock', 'rust-toolchain.toml', 'tools/Cargo.lock', 'scripts/build.ts', 'scripts/wasm_bindgen.mjs', 'scripts/wasm_functions.ts', 'scripts/wasm_imports.ts', 'scripts/esbuild.mjs'].map((file) => join(root, file));
  const npmTools = ['binaryen', 'esbuild'].map((name) => npmPackage(name, 'package.json'));
  const files = [...new Set([...sources, ...included.filter((file) => file !== ''), ...settings, ...npmTools])].sort();
  const present = await Promise.all(files.map((file) => stat(file).then(() => true, () => false)));
  return files.filter((_, index) => present[index]);
}

/** The sizes that count for a Worker: uploads are gzipped. */
async function sizes(): Promise<string> {
  const measured = await Promise.all(
    ['index.js', 'index_bg.wasm'].map(async (name) => {
      const bytes = await readFile(join(buildFolder, name));
      return { name, raw: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length };
    }),
  );
  const sum = (key: 'raw' | 'gzipped') => measured.reduce((total, file) => total + file[key], 0);
  return [...measured, { name: 'together', raw: sum('raw'), gzipped: sum('gzipped') }]
    .map(({ name, raw, gzipped }) => `  ${name.padEnd(14)} ${kilobytes(raw)}  ${kilobytes(gzipped)} gzipped`)
    .join('\n');
}

const kilobytes = (bytes: number) => `${(bytes / 1000).toFixed(1).padStart(7)} kB`;

if (import.meta.main) {
  await runScript(async () => {
    await build();
    console.log(`build/ and ${relative(root, edgeFunctionFolder)}/ are up to date:\n${await sizes()}`);
  });
}
