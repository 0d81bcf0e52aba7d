/** Finds the browser of the browser tests: the system's Chromium or Chrome; on Debian, as root, a missing one is installed. */
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { run } from './run_program.ts';
import { Failure, step } from './steps.ts';

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'];
const places = ['/Applications/Google Chrome.app/Contents/MacOS/Google Chrome', '/Applications/Chromium.app/Contents/MacOS/Chromium'];

/** Finds the program; undefined where there is none. `CHROMIUM` in the environment precedes all others. */
export async function findChromium(): Promise<string | undefined> {
  const named = process.env['CHROMIUM'];
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const candidates = [...(named === undefined ? [] : [named]), ...names.flatMap((name) => folders.map((folder) => join(folder, name))), ...places];
  for (const file of candidates) if (await isProgram(file)) return file;
  return undefined;
}

/** Finds the program, or installs it. */
export async function ensureChromium(): Promise<string> {
  const found = await findChromium();
  if (found !== undefined) return found;
  if (process.getuid?.() !== 0 || !(await isProgram('/usr/bin/apt-get'))) {
    throw new Failure('The browser tests need Chromium or Chrome: install one (Debian: apt-get install chromium), or name it in CHROMIUM.');
  }
  return step('installing Chromium (apt-get)', async () => {
    const env = { DEBIAN_FRONTEND: 'noninteractive' };
    for (const args of [['update', '-qq'], ['install', '-y', '-qq', '--no-install-recommends', 'chromium', 'fonts-dejavu-core']]) {
      const { ok, output } = await run('apt-get', args, { env });
      if (ok) continue;
      process.stderr.write(output);
      throw new Failure('Chromium could not be installed: see the message of apt-get above.');
    }
    const installed = await findChromium();
    if (installed === undefined) throw new Failure('Chromium was installed and cannot be found: name it in CHROMIUM.');
    return installed;
  });
}

const isProgram = (file: string) =>
  access(file, constants.X_OK).then(
    () => true,
    () => false,
  );
