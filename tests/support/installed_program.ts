// Finds a program in an npm package, where npm has one for the platform, or on the machine.

import { accessSync, constants, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';

export type Machine = {
  platform: string;
  arch: string;
  env: Record<string, string | undefined>;
};

/** In an optional npm package; npm installs it on its platform only. */
export function programInPackage(name: string, program: string): string | undefined {
  try {
    const description = createRequire(import.meta.url).resolve(`${name}/package.json`);
    const file = join(dirname(description), program);
    return isProgram(file) ? file : undefined;
  } catch {
    return undefined; // not installed
  }
}

export function programOnPath(program: string, { env }: Machine): string | undefined {
  const folders = (env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return folders.map((folder) => join(folder, program)).find(isProgram);
}

export function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
