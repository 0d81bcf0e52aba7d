/** One generation: opens the session's row beside the model call, reads the candidates, and writes them with the session's end. */
import { AnswerReader, batches, chunks } from './model_answer.js';
import { callModel, database } from './upstream.js';

const WATCH_MS = 1_000;
const IDLE_MS = 15_000;
/** Candidates that arrive within this time are stored and sent together. */
const TOGETHER_MS = 5;

export class Generation {
  #object;
  #record;
  #candidates;
  #stored;
  #isStream;
  #subscribers = [];
  #answer = new AnswerReader();
  #timing = { model_ms: 0, database_ms: 0 };
  #ended = Promise.withResolvers();
  #sent_ms = 0;
  #timer;

  /** `candidates`: those that were stored before a crash. */
  constructor(object, record, { isStream = false, candidates = [] }) {
    this.#object = object;
    this.#record = record;
    this.#isStream = isStream;
    this.#candidates = candidates;
    this.#stored = candidates.length;
  }

  get id() {
    return this.#record.id;
  }

  /** Resolves at the end: to a reply, or to a failure. */
  get outcome() {
    return this.#ended.promise;
  }

  /** Sends the candidates so far, and each later one once it is stored. */
  subscribe(events) {
    this.#sendNew();
    events.sendCandidates(this.#candidates);
    this.#subscribers.push(events);
  }

  async run() {
    const start_ms = Date.now();
    const outcome = await this.#work().catch((error) => ({ failure: error.message }));
    this.#object.end(this.#record, outcome);
    const { failure, partial } = outcome;
    const count = this.#candidates.length;
    for (const events of this.#subscribers) {
      if (failure === undefined) events.end('done', { id: this.id, count, partial, usage: this.#answer.usage });
      else events.end('error', { code: 'model_failed', detail: failure });
    }
    const { request_id, attempt } = this.#record;
    const line = { level: 'info', message: 'generation', session_id: this.id, request_id, attempt, candidates: count, partial, failure };
    console.log(JSON.stringify({ ...line, duration_ms: Date.now() - start_ms, ...this.#timing }));
    this.#ended.resolve(outcome);
  }

  /** A resumed generation calls the model only if the database does not have its end, and no candidate was stored. */
  async #work() {
    const { attempt, ending } = this.#record;
    if (ending !== undefined) return this.#finish(ending);
    const written = attempt > 1 ? await this.#written().catch(postponed) : undefined;
    if (written !== undefined) return written;
    const opening = this.#open().then(() => true, () => false);
    const failure = this.#stored > 0 ? 'the service restarted' : await this.#read();
    const isOpen = await opening;
    const { hasGap, usage } = this.#answer;
    if (this.#candidates.length === 0) return this.#fail(failure ?? 'the answer has no candidates');
    return this.#finish({ isOpen, partial: failure !== undefined || hasGap, usage });
  }

  #open() {
    return this.#write('ai_generation_sessions', JSON.stringify({ id: this.id, run: 1, ...this.#opening() }));
  }

  #opening() {
    const { model, input_text, accepted_ms } = this.#record;
    return { model, input_text, created_at: new Date(accepted_ms).toISOString() };
  }

  /** Returns the reason for which the answer is not complete. */
  async #read() {
    const controller = new AbortController();
    const start_ms = Date.now();
    let arrived_ms = start_ms;
    const watch = setInterval(() => {
      const now_ms = Date.now();
      if (now_ms > this.#record.deadline_ms || now_ms > arrived_ms + IDLE_MS) controller.abort(new Error('the model took too long'));
    }, WATCH_MS);
    try {
      const body = await callModel(this.#object.env, this.#record, controller.signal);
      for await (const { bytes, isPending } of this.#isStream ? chunks(body) : batches(body)) {
        if (bytes.length > 0) arrived_ms = Date.now();
        this.#candidates.push(...this.#answer.push(bytes));
        if (this.#isStream) this.#sendSoon();
        else if (isPending) this.#sendNew();
      }
      return this.#answer.isComplete ? undefined : 'the answer of the model is incomplete';
    } catch (error) {
      return error.message;
    } finally {
      clearInterval(watch);
      if (this.#subscribers.length > 0) this.#sendNew();
      this.#timing.model_ms = Date.now() - start_ms;
    }
  }

  #sendSoon() {
    if (this.#stored === this.#candidates.length) return;
    const wait_ms = this.#sent_ms + TOGETHER_MS - Date.now();
    if (wait_ms <= 0) this.#sendNew();
    else this.#timer ??= setTimeout(() => this.#sendNew(), wait_ms);
  }

  /** A candidate is sent once it is stored: the platform sends nothing before the commit. */
  #sendNew() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const added = this.#storeNew();
    this.#sent_ms = Date.now();
    for (const events of this.#subscribers) events.sendCandidates(added);
  }

  #storeNew() {
    const added = this.#candidates.slice(this.#stored);
    this.#object.storeCandidates(this.#record, this.#stored, added);
    this.#stored = this.#candidates.length;
    return added;
  }

  /** Writes candidates and end in one transaction of the database, and the row itself where it could not be opened. */
  async #finish(ending) {
    const { id } = this;
    const { isOpen, partial, usage } = ending;
    const candidates = JSON.stringify(this.#candidates);
    const { prompt_tokens, completion_tokens, cost } = usage;
    const session = JSON.stringify({ id, run: 1, ...(isOpen ? {} : this.#opening()), status: 'completed', partial, prompt_tokens, completion_tokens, cost });
    const event = JSON.stringify({ candidates: this.#candidates.length, partial });
    try {
      await this.#write('rpc/finish_ai_session', `{"session":${session},"candidates":${candidates},"event":${event}}`);
    } catch {
      this.#storeNew();
      return { isPostponed: true, ...this.#completed(partial, candidates), ending };
    }
    return this.#completed(partial, candidates);
  }

  async #fail(failure) {
    const session = { id: this.id, run: 1, status: 'failed', partial: false, error_code: 'model_failed' };
    await this.#write('rpc/finish_ai_session', JSON.stringify({ session, candidates: [], event: { failure } }));
    return { failure };
  }

  #completed(partial, candidates) {
    const { model_ms, database_ms } = this.#timing;
    const timing = `model;dur=${model_ms}, database;dur=${database_ms}`;
    return { partial, timing, reply: `{"id":"${this.id}","partial":${partial},"candidates":${candidates}}` };
  }

  /** Returns the outcome that the database has: a crash may have followed its transaction. */
  async #written() {
    const select = 'select=status,partial,flashcard_candidates(id,front,back,prompt)&flashcard_candidates.order=position';
    const [row] = JSON.parse(await database(this.#object.env, this.#record.token, `ai_generation_sessions?id=eq.${this.id}&${select}`));
    if (row?.status === 'failed') return { failure: 'the model failed' };
    if (row?.status !== 'completed') return undefined;
    this.#candidates = row.flashcard_candidates;
    return this.#completed(row.partial, JSON.stringify(row.flashcard_candidates));
  }

  async #write(path, body) {
    const start_ms = Date.now();
    await database(this.#object.env, this.#record.token, path, body);
    this.#timing.database_ms += Date.now() - start_ms;
  }
}

/** The outcome of a generation that the alarm resumes, because the database did not respond. */
const postponed = ({ message }) => ({ isPostponed: true, failure: message });
