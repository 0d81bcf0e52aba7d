/** ClickHouse (chdb, from PyPI) for the queries of operations/, in its own Python environment. */
import { join } from 'node:path';
import { root, toolsFolder } from './paths.ts';
import { ensurePythonPackages } from './python_packages.ts';

const environment = join(toolsFolder, 'clickhouse');
const requirements = join(root, 'tests/operations/requirements.txt');

/** The Python that has chdb. */
export const clickhousePython = join(environment, 'bin/python');

/** Installs it at the pinned version with the pinned hashes. */
export const ensureClickHouse = (): Promise<void> => ensurePythonPackages(environment, requirements, { name: 'chdb-core-lite', alone: true });
