/** Installs the npm packages of the peer, by bench/package-lock.json, and bundles the peer. */
import { join } from 'node:path';
import { npmPackage, root } from '../scripts/paths.ts';
import { type Ended, run } from '../scripts/run_program.ts';
import { Failure } from '../scripts/steps.ts';
import { wrangler } from '../scripts/wrangler.ts';

const bench = join(root, 'bench');
const peer = join(bench, 'peer');

export const peerBundle = join(peer, 'bundle');

export async function installPeer(): Promise<void> {
  if ((await run('npm', ['ls', '--prefix', bench])).ok) return;
  const args = ['ci', '--prefix', bench, '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  must(await run('npm', args), "The peer's packages could not be installed: see npm's message above.");
}

/** Bundles the Worker as `wrangler deploy --minify` uploads it, and the Edge Function by the same tool with the same options. */
export async function bundlePeer(): Promise<void> {
  must(await run(process.execPath, [npmPackage('typescript', 'bin/tsc'), '-p', peer]), "The peer's types do not agree: see above.");
  const args = ['deploy', '--dry-run', '--minify', '--config', join(peer, 'wrangler.toml'), '--outdir', peerBundle];
  must(await wrangler(args), "The peer could not be bundled: see wrangler's message above.");
  const bundled = ['--bundle', '--minify', '--format=esm', '--platform=browser', '--conditions=deno,worker', '--log-level=warning'];
  const files = [join(peer, 'edge_function.ts'), `--outfile=${join(peerBundle, 'edge_function.js')}`];
  must(await run(npmPackage('esbuild', 'bin/esbuild'), [...bundled, ...files]), "The peer's Edge Function could not be bundled: see esbuild's message above.");
}

function must({ ok, output }: Ended, sentence: string): void {
  if (ok) return;
  process.stderr.write(output);
  throw new Failure(sentence);
}
