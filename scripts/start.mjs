// The entry of every command in package.json: `node scripts/start.mjs <command> [args]`. A command `test:api` is the script
// `scripts/test_api.ts`.
//
// Plain JavaScript for any Node from 18 on, because nothing is installed yet when it starts. It installs the npm packages,
// then runs the command's script under the project's own Node (npm package `node`), which runs TypeScript as it is. A command
// installs its other tools (Rust, cargo tools) itself.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const projectNode = join(root, 'node_modules', 'node', 'bin', 'node');
const oldestNode = 18;

const [command = '', ...args] = process.argv.slice(2);

if (Number(process.versions.node.split('.')[0]) < oldestNode) {
  stop(`This is Node ${process.versions.node}: install Node ${oldestNode} or newer and run the command again.`);
}
if (!commands().includes(command)) {
  stop(`There is no command "${command}": take one of ${commands().join(', ')} (npm run <command>).`);
}
if (!installedMatchesLock()) await installPackages();
process.exitCode = await run(projectNode, ['--disable-warning=ExperimentalWarning', scriptOf(command), ...args], { stdio: 'inherit' });

/** The commands are the scripts that package.json starts through this file: the list is written down once. */
function commands() {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return Object.keys(scripts).filter((name) => existsSync(scriptOf(name)));
}

function scriptOf(command) {
  return join(root, 'scripts', `${command.replace(':', '_')}.ts`);
}

/**
 * Whether node_modules contains the packages of package-lock.json. npm writes its own record after a successful installation,
 * so that an `npm install` by hand counts too.
 */
function installedMatchesLock() {
  const record = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(projectNode) || !existsSync(record)) return false;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(record, 'utf8')).packages;
  const packages = Object.entries(wanted).filter(([path]) => path !== '');
  const complete = packages.every(([path, { version, optional }]) =>
    path in installed ? installed[path].version === version : optional === true,
  );
  // In a folder shared between machines the binaries can be those of another platform: workerd's package shows which.
  const workerd = `workerd-${process.platform}-${process.arch === 'x64' ? '64' : process.arch}`;
  return complete && existsSync(join(root, 'node_modules', '@cloudflare', workerd));
}

async function installPackages() {
  console.log('… installing the npm packages (npm ci)');
  const start = Date.now();
  const output = [];
  const code = await run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { stdio: ['ignore', 'pipe', 'pipe'] }, output);
  if (code === 'missing') stop('npm is missing: install it (it comes with Node) and run the command again.');
  if (code !== 0) {
    process.stderr.write(Buffer.concat(output));
    stop("npm ci could not install the packages: see npm's message above, check the network and the registry, and run the command again.");
  }
  if (!existsSync(projectNode)) {
    stop('npm did not run the install script of the package `node`: run `npm config set ignore-scripts false`, then `npm ci`, and the command again.');
  }
  console.log(`✓ installing the npm packages (${((Date.now() - start) / 1000).toFixed(1)} s)`);
}

/** Runs a program to its end; the terminal's Ctrl-C reaches the program by itself. */
function run(program, programArgs, options, output) {
  return new Promise((resolve) => {
    const child = spawn(program, programArgs, { cwd: root, ...options });
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => output.push(chunk));
    const pass = (signal) => child.kill(signal);
    const wait = () => {};
    process.on('SIGINT', wait).on('SIGTERM', pass).on('SIGHUP', pass);
    child.on('error', (error) => resolve(error.code === 'ENOENT' ? 'missing' : 1));
    child.on('close', (code) => {
      process.off('SIGINT', wait).off('SIGTERM', pass).off('SIGHUP', pass);
      resolve(code ?? 1);
    });
  });
}

function stop(sentence) {
  console.error(sentence);
  process.exit(1);
}
