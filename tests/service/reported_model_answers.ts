// Model answers from public bug reports of other clients (tests/fixtures/cases), each in sync mode and in stream mode, with
// its own user.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { before, describe, it } from 'node:test';
import { contentByCharacters, type ModelBehaviour, withPauses } from '../support/model_behaviour.ts';
import { scriptByMark } from '../support/model_by_mark.ts';
import { AT_ONCE, expectCandidates, expectFailed, meeting } from './model_failures.ts';
import { createStream, expectList, lesson, signIn, started, type StartService } from './service.ts';

export function tests(start: StartService): void {
  describe('in sync mode', () => inSyncMode(start));
  describe('in stream mode', () => inStreamMode(start));

  it('each file is a case, and each case a file', () => {
    assert.deepEqual(readdirSync(folder).filter((name) => name !== 'README.md').sort(), Object.keys(CASES).sort());
  });
}

type Candidate = { front: string; back: string; prompt: string };
type Expected = { candidates: Candidate[]; partial?: boolean; dropped?: number } | { code: string; attempts: number };

const folder = new URL('../fixtures/cases/', import.meta.url);
const text = (name: string) => readFileSync(new URL(name, folder), 'utf8');
const candidate = (front: string, back: string, prompt: string): Candidate => ({ front, back, prompt });

const SIX = [
  candidate('What lifts water into the air?', 'Evaporation by the heat of the sun.', 'Tests the first step of the water cycle.'),
  candidate('What turns vapour into cloud droplets?', 'Condensation on tiny particles.', 'Tests how clouds form.'),
  candidate('What is rain that never reaches the ground called?', 'Virga.', 'Tests a term for evaporating rain.'),
  candidate('Which layer stores groundwater?', 'An aquifer.', 'Tests the term for water-bearing rock.'),
  candidate('What do plants release through their leaves?', 'Water vapour, by transpiration.', 'Tests the role of plants.'),
  candidate("What share of the Earth's water is fresh?", 'About 3 percent.', 'Tests a figure on fresh water.'),
];
const FORMULAS = [
  candidate(String.raw`What is \frac{1}{2} + \frac{1}{4}?`, String.raw`\frac{3}{4}`, 'Tests adding fractions.'),
  candidate(String.raw`What does \theta stand for in \tan\theta?`, 'The angle.', 'Tests a symbol.'),
  candidate(String.raw`What is \beta decay?`, String.raw`\boldsymbol{n \rightarrow p + e}`, 'Tests a nuclear process.'),
  candidate(String.raw`What does \nabla f mean?`, String.raw`The gradient of f; \neq 0 in general.`, 'Tests a symbol.'),
  candidate('What is the area of a circle?', String.raw`\(\pi r^2\)`, 'Tests a formula.'),
  candidate(String.raw`What is the limit of \sum 1/2^n?`, '2', 'Tests a series.'),
];
const whole: Expected = { candidates: SIX };

const CASES: Record<string, Expected> = {
  '01-finish-reason-empty-slow.sse': whole,
  '02-finish-reason-empty-fast.sse': whole,
  '03-finish-reason-empty-and-usage-in-every-chunk.sse': whole,
  '05-stop-and-usage-in-every-chunk.sse': whole,
  '07-usage-in-every-chunk.sse': whole,
  '10-missing-delta.sse': whole,
  '11-keepalive-comment-as-data.sse': whole,
  '13-ping-events-empty.sse': whole,
  '14-events-without-blank-lines.sse': whole,
  '15-stream-without-content-type.sse': whole,
  '17-json-body-called-event-stream.sse': whole,
  '19-no-done-no-finish-but-lastone.sse': whole,
  // Each chunk repeats those before it: the JSON around them is opened seven times and closed once.
  '21-cumulative-content.sse': { candidates: SIX, partial: true },
  '22-content-as-one-object.sse': whole,
  '24-nan-in-first-chunk.sse': whole,
  '28-answer-as-tool-call.sse': whole,
  '29-error-field-of-the-event-stream.sse': { code: 'ai_misconfigured', attempts: 1 },
  '30-context-error-as-data.sse': { code: 'ai_misconfigured', attempts: 1 },
  '32-only-done.sse': { code: 'ai_invalid_response', attempts: 3 },
  '35-both-reasoning-fields-and-one-twice.sse': whole,
  '40-think-block-with-draft.content.txt': whole,
  '43-double-opening-brace.content.txt': whole,
  '45-latex-single-backslashes.content.txt': { candidates: FORMULAS },
  '46-latex-escaped.content.txt': {
    candidates: [candidate(String.raw`What is \frac{1}{2} + \frac{1}{4}?`, String.raw`\(\frac{3}{4}\)`, 'Tests adding fractions.')],
  },
  '48-array-as-a-string.content.txt': whole,
  '50-one-card-in-place-of-the-list.content.txt': { candidates: SIX.slice(0, 1) },
  '53-answer-in-an-envelope.content.txt': whole,
  '54-cloze-ruby-rtl-emoji.content.txt': { candidates: JSON.parse(text('54-cloze-ruby-rtl-emoji.content.txt')).candidates },
  // Without tag characters the three flags are the same, and so are the fronts.
  '55-subdivision-flags.content.txt': { candidates: [candidate('Which country has the flag 🏴?', 'England 🏴', 'Flags.')], dropped: 2 },
  '57-smart-quotes.content.txt': whole,
  '60-python-literals.content.txt': { code: 'ai_invalid_response', attempts: 3 },
  '62-think-block-and-draft-in-fence.content.txt': whole,
  '72-fastapi-detail-in-200.json': { code: 'ai_invalid_response', attempts: 3 },
  '73-402-fewer-max-tokens.json': { code: 'ai_misconfigured', attempts: 1 },
};

function behaviour(name: string): ModelBehaviour {
  if (name.endsWith('.content.txt')) return contentByCharacters(text(name), 12);
  if (name.endsWith('.json')) return withPauses(text(name), { status: name.startsWith('73-') ? 402 : 200, content_type: 'application/json' });
  return withPauses(text(name), { content_type: name.startsWith('15-') ? null : 'text/event-stream' });
}

function inSyncMode(start: StartService): void {
  const meet = meeting(start);
  describe('an answer', { concurrency: AT_ONCE }, () => {
    for (const [name, expected] of Object.entries(CASES)) {
      it(`${name} has its ${'code' in expected ? 'error' : 'candidates'}`, async () => {
        const met = await meet(behaviour(name));
        if ('code' in expected) await expectFailed(met, expected.code, expected.attempts);
        else await expectCandidates(met, { partial: false, ...expected, attempts: 1 });
      });
    }
  });
}

function inStreamMode(start: StartService): void {
  const service = started(start);
  let scripted: ReturnType<typeof scriptByMark>;
  before(() => {
    scripted = scriptByMark(service().world.openrouter);
  });
  describe('an answer', { concurrency: AT_ONCE }, () => {
    for (const [name, expected] of Object.entries(CASES)) {
      it(`${name} has its ${'code' in expected ? 'error' : 'candidates'}`, async () => {
        const script = scripted([behaviour(name)]);
        const { token } = await signIn(service());
        const stream = await createStream(service(), token, { input_text: `${script.mark} ${lesson()}`, model: 'test/first' });
        const events = await stream.whole();
        const end = expectList(events, 'code' in expected ? 0 : expected.candidates.length, 'code' in expected ? 'error' : 'done');
        if ('code' in expected) {
          assert.deepEqual([end.code, script.requests.length], [expected.code, expected.attempts]);
          return;
        }
        const given = events.slice(1, -1).map(({ data: { front, back, prompt } }) => ({ front, back, prompt }));
        assert.deepEqual(given, expected.candidates);
        assert.deepEqual([end.partial, script.requests.length], [expected.partial ?? false, 1]);
      });
    }
  });
}
