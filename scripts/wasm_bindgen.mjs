#!/usr/bin/env node
// wasm-bindgen as worker-build calls it, without the abort handler: its wrappers around each import use exnref, which the
// engine of Supabase Edge Functions (Deno 2.1, V8 13.0) refuses. The trap guard responds for a torn-down module, on each host.
import { spawnSync } from 'node:child_process';

const { AI_SESSIONS_WASM_BINDGEN: program } = process.env;
const args = process.argv.slice(2).filter((argument) => argument !== '--force-enable-abort-handler');
const { status } = spawnSync(program, args, { stdio: 'inherit' });
process.exitCode = status ?? 1;
