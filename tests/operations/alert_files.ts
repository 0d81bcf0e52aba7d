// Reads operations/alerts: the head of each file and its query.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { root } from '../../scripts/paths.ts';
import { withoutComments } from './sql_dialect.ts';

export const alertsFolder = join(root, 'operations/alerts');

export type Alert = {
  /** The file's name without its extension. */
  name: string;
  severity: string;
  window: string;
  /** With its comparison, as in `> 0.2`. */
  threshold: string;
  runbook: string;
  /** What it means. */
  meaning: string;
  /** The query, without comments. */
  query: string;
};

const HEAD = /^-- alert: (?<name>.+)\n-- severity: (?<severity>.+)\n-- window: (?<window>.+)\n-- threshold: (?<threshold>.+)\n-- runbook: (?<runbook>.+)\n(?<meaning>(?:-- .+\n)+)(?<query>SELECT\n[^;]+\n)$/;

/** All alerts, by name. A file whose head is not in the format is an error. */
export async function readAlerts(): Promise<Alert[]> {
  const files = (await readdir(alertsFolder)).filter((file) => file.endsWith('.sql')).sort();
  return Promise.all(
    files.map(async (file) => {
      const { groups } = HEAD.exec(await readFile(join(alertsFolder, file), 'utf8')) ?? {};
      if (groups === undefined) throw new Error(`operations/alerts/${file} does not begin with alert, severity, window, threshold, runbook and its meaning`);
      const { name, severity, window, threshold, runbook, meaning, query } = groups as Omit<Alert, never>;
      if (name !== file.slice(0, -'.sql'.length)) throw new Error(`operations/alerts/${file} names another alert: ${name}`);
      return { name, severity, window, threshold, runbook, meaning: meaning.replaceAll('-- ', '').replaceAll('\n', ' ').trim(), query: withoutComments(query) };
    }),
  );
}
