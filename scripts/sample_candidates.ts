/** Requests candidates for the sample text as any client would: over HTTP, with a user's token. */
import { readFile, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { root } from './paths.ts';
import { Failure } from './steps.ts';

interface Candidate {
  front: string;
  back: string;
  prompt: string;
  source: { start: number; end: number } | null;
  supported: boolean | null;
  notes: string[];
}

const sampleFile = 'examples/sample-text.txt';

/** Longer than the service's own deadline, so that its error is shown. */
const answerDeadlineMs = 120_000;

/** Writes the request's body into `folder`, for this script and for curl; returns its path relative to the project's root. */
export async function writeSampleRequest(folder: string, workerUrl: string): Promise<string> {
  const file = join(folder, 'sample-request.json');
  const text = await readFile(join(root, sampleFile), 'utf8');
  await writeFile(file, `${JSON.stringify({ input_text: text, model: await defaultModel(workerUrl) })}\n`);
  return relative(root, file);
}

export async function makeSampleCandidates(workerUrl: string, token: string, requestFile: string): Promise<string> {
  const response = await fetch(`${workerUrl}/ai-sessions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: await readFile(join(root, requestFile)),
    signal: AbortSignal.timeout(answerDeadlineMs),
  });
  const answer = await response.text();
  if (response.status !== 201) throw new Failure(`No cards: the Worker answered ${response.status} ${answer}`);
  const { candidates } = JSON.parse(answer) as { candidates: Candidate[] };
  const lines = candidates.map((candidate, index) => {
    const { front, back, prompt } = candidate;
    const number = `${index + 1}.`.padStart(5);
    return `${number} ${front}\n      ${back}\n      (${prompt})\n      [${originOf(candidate)}]`;
  });
  return `${candidates.length} ${candidates.length === 1 ? 'card' : 'cards'} from ${sampleFile}:\n\n${lines.join('\n')}`;
}

/** Where a candidate comes from, in a few words. */
function originOf({ source, supported, notes }: Candidate): string {
  const place = source === null ? 'no source' : `characters ${source.start} to ${source.end}`;
  return [place, ...(supported === false ? ['not supported'] : []), ...notes].join(', ');
}

/** The command for bash, in the project's root. */
export function curlLine(workerUrl: string, token: string, requestFile: string): string {
  return `curl -sS ${workerUrl}/ai-sessions -H "Authorization: Bearer ${token}" -H 'Content-Type: application/json' --data-binary @${requestFile}`;
}

async function defaultModel(workerUrl: string): Promise<string> {
  const response = await fetch(`${workerUrl}/models`);
  if (!response.ok) throw new Failure(`The Worker answered ${response.status} for /models: ${await response.text()}`);
  const { models } = (await response.json()) as { models: { id: string; default: boolean }[] };
  const model = models.find((each) => each.default);
  if (model === undefined) throw new Failure('The Worker names no default model: put at least one into ALLOWED_MODELS.');
  return model.id;
}
