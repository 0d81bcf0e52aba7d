/**
 * The Durable Object of one user: counts, admits, stores what was accepted, and resumes it after a crash.
 *
 * The records, in one table so that a commit writes one page: `ledger`, `generation/SLOT`, `candidate/SLOT/POSITION`, `key/KEY`.
 * A generation without a key that ends within 250 ms is never written again: its slot is reused by the next accepted generation,
 * in the same commit, or deleted by the alarm. A record that a crash left there is checked against the database first.
 */
import { DurableObject } from 'cloudflare:workers';
import { Generation } from './generation.js';
import { Problem } from './problem.js';
import { quotasOf, rateLimitFields, refund, reserve, retryAfter_s } from './quota.js';
import { readWhole, streamOf } from './replies.js';

const ALARM_MS = 10_000;
const GENERATION_MS = 60_000;
/** A token's life: later, its user's rows cannot be written. */
const RESUME_MS_MAX = 3_600_000;
const KEY_MS = 86_400_000;

export class UserObject extends DurableObject {
  /** The generations in progress by id, and the slots of those that have ended. */
  running = new Map();
  ended = [];
  /** The records of generations that do not run: a crash ended them, or their rows could not be written. */
  interrupted = [];
  /** The slots with stored candidates. */
  withCandidates = new Set();
  slots = 0;
  alarm_ms = 0;

  constructor(state, env) {
    super(state, env);
    this.sql = state.storage.sql;
    this.sql.exec('create table if not exists records (name text primary key, record text not null) strict, without rowid');
    this.quotas = quotasOf(env);
    this.ledger = this.find('ledger') ?? {};
    for (const { name, record } of this.sql.exec("select name, record from records where name glob 'generation/*'")) {
      const slot = Number(name.slice('generation/'.length));
      this.interrupted.push({ slot, ...JSON.parse(record) });
      this.withCandidates.add(slot);
      this.slots = Math.max(this.slots, slot + 1);
    }
  }

  async fetch(request) {
    const command = await request.json();
    try {
      this.resumeInterrupted();
      return await this.execute(command);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return error.response(command, rateLimitFields(this.ledger, this.quotas, Date.now()));
    }
  }

  async execute(command) {
    const now_ms = Date.now();
    if (!reserve(this.ledger, this.quotas, ['burst'], now_ms)) throw this.limited(now_ms);
    if (command.errors !== undefined) {
      this.put([['ledger', this.ledger]]);
      throw invalidBody(command.errors);
    }
    const { key } = command;
    const fingerprint = key === undefined ? undefined : await fingerprintOf(command);
    const known = key === undefined ? undefined : this.find(`key/${key}`);
    if (known === undefined) return this.reply(this.accept(command, fingerprint, now_ms), command);
    this.put([['ledger', this.ledger]]);
    if (known.fingerprint !== fingerprint) throw new Problem('idempotency_key_reused', 'this key came with another body');
    return this.reply(this.running.get(known.id) ?? known, command);
  }

  limited(now_ms) {
    const headers = { 'retry-after': String(retryAfter_s(this.ledger, this.quotas, now_ms)) };
    return new Problem('rate_limited', 'a limit is reached; see Retry-After', { headers });
  }

  /** Counts and stores a new generation in one commit, and starts it. */
  accept({ token, key, input_text, model, request_id, isStream }, fingerprint, now_ms) {
    const refuse = (problem) => {
      this.put([['ledger', this.ledger]]);
      throw problem;
    };
    if (this.running.size >= Number(this.env.RATE_LIMIT_CONCURRENT)) refuse(new Problem('too_many_generations', 'wait for the end of one', { headers: { 'retry-after': '5' } }));
    if (!reserve(this.ledger, this.quotas, ['generations', 'attempts'], now_ms)) refuse(this.limited(now_ms));
    const slot = this.ended.pop() ?? this.slots++;
    const record = { version: 1, id: crypto.randomUUID(), attempt: 1, token, key, input_text, model, request_id, accepted_ms: now_ms, deadline_ms: now_ms + GENERATION_MS };
    const records = [['ledger', this.ledger], [`generation/${slot}`, record]];
    if (key !== undefined) records.push([`key/${key}`, { id: record.id, fingerprint, expires_ms: now_ms + KEY_MS }]);
    this.deleteCandidates(slot);
    this.put(records);
    this.scheduleAlarm(now_ms);
    return this.start({ slot, ...record }, { isStream });
  }

  start(record, options) {
    const generation = new Generation(this, record, options);
    this.running.set(record.id, generation);
    this.ctx.waitUntil(generation.run());
    return generation;
  }

  /** `source`: a generation, or the record of a key whose generation has ended. */
  reply(source, { isStream }) {
    const fields = { ...rateLimitFields(this.ledger, this.quotas, Date.now()), location: `/ai-sessions/${source.id}` };
    return isStream ? streamOf(source, fields) : readWhole(source, fields);
  }

  /** Stores candidates of a generation in progress. */
  storeCandidates({ slot }, from, candidates) {
    if (candidates.length > 0) this.withCandidates.add(slot);
    this.put(candidates.map((candidate, index) => [`candidate/${slot}/${String(from + index).padStart(5, '0')}`, candidate]));
  }

  /** Stores a generation that the alarm resumes; its candidates are stored already. */
  postpone({ slot, ...record }, ending) {
    this.put([[`generation/${slot}`, { ...record, ending }]]);
    this.interrupted.push({ slot, ...record, ending });
    this.scheduleAlarm(Date.now());
  }

  /** Ends a generation. Only the reply to a key and a refund are worth a commit of their own. */
  end(record, { reply, failure, isPostponed, ending }) {
    const { slot, id, key } = record;
    this.running.delete(id);
    if (isPostponed) this.postpone(record, ending);
    else this.ended.push(slot);
    if (isPostponed && reply === undefined) return;
    if (failure !== undefined) {
      refund(this.ledger, 'generations');
      this.put([['ledger', this.ledger]]);
    }
    if (key === undefined) return;
    if (reply === undefined) this.sql.exec('delete from records where name = ?', `key/${key}`);
    else this.put([[`key/${key}`, { ...this.find(`key/${key}`), reply }]]);
  }

  /** Resumes the generations that do not run, unless their deadline or their token's life is over. */
  resumeInterrupted() {
    for (const { slot, ...stored } of this.interrupted.splice(0)) {
      const now_ms = Date.now();
      const record = { ...stored, attempt: stored.attempt + 1 };
      if (now_ms > record.accepted_ms + RESUME_MS_MAX) {
        this.end({ slot, ...record }, { failure: 'its token has expired' });
        continue;
      }
      if (record.ending === undefined) reserve(this.ledger, this.quotas, ['attempts'], now_ms);
      this.put([['ledger', this.ledger], [`generation/${slot}`, record]]);
      this.start({ slot, ...record }, { candidates: this.candidatesOf(slot) });
    }
  }

  alarm() {
    this.resumeInterrupted();
    for (const slot of this.ended.splice(0)) {
      this.sql.exec('delete from records where name = ?', `generation/${slot}`);
      this.deleteCandidates(slot);
    }
    this.sql.exec("delete from records where name glob 'key/*' and record ->> 'expires_ms' < ?", Date.now());
    if (this.running.size > 0) this.scheduleAlarm(Date.now());
  }

  scheduleAlarm(now_ms) {
    if (this.alarm_ms > now_ms) return;
    this.alarm_ms = now_ms + ALARM_MS;
    this.ctx.storage.setAlarm(this.alarm_ms);
  }

  /** Stores records; all writes of one turn are one commit. */
  put(records) {
    for (const [name, record] of records) this.sql.exec('insert or replace into records values (?, ?)', name, JSON.stringify(record));
  }

  find(name) {
    const [row] = this.sql.exec('select record from records where name = ?', name);
    return row && JSON.parse(row.record);
  }

  candidatesOf(slot) {
    return [...this.sql.exec('select record from records where name glob ? order by name', `candidate/${slot}/*`)].map(({ record }) => JSON.parse(record));
  }

  deleteCandidates(slot) {
    if (!this.withCandidates.delete(slot)) return;
    this.sql.exec('delete from records where name glob ?', `candidate/${slot}/*`);
  }
}

function invalidBody(errors) {
  const [{ field, message }] = errors;
  return new Problem('validation_failed', `${field} ${message}`.trim(), { members: { errors } });
}

async function fingerprintOf({ input_text, model }) {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(`${model}\n${input_text}`));
  return new Uint8Array(digest).toHex();
}
