#!/usr/bin/env node
// esbuild as worker-build calls it, without its entry point: src/cloudflare/worker.js and src/supabase_edge/edge_function.js are the
// entry points, and scripts/build.ts bundles them with the output of wasm-bindgen.
import { spawnSync } from 'node:child_process';

const { AI_SESSIONS_ESBUILD: program } = process.env;
const args = process.argv.slice(2).map((argument) => (argument === './shim.js' ? './index.js' : argument));
const { status } = spawnSync(program, args, { stdio: 'inherit' });
process.exitCode = status ?? 1;
