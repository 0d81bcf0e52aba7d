/** Names for the request and response types of openapi.ts, which is generated from the OpenAPI document. */
import type { components } from './openapi.ts';

type Schemas = components['schemas'];

export type NewSession = Schemas['NewSession'];
export type Candidate = Schemas['Candidate'];
/** A range of the stored text, in Unicode scalar values: see passages.ts. */
export type Source = Schemas['Source'];
/** The code of an advice on a candidate. */
export type Note = Schemas['Notes'][number];
export type Created = Schemas['Created'];
export type Session = Schemas['Session'];
export type SessionSummary = Schemas['SessionSummary'];
export type SessionList = Schemas['SessionList'];
export type Model = Schemas['Model'];
export type Models = Schemas['Models'];

export type SessionEvent = Schemas['SessionEvent'];
export type CandidateEvent = Schemas['CandidateEvent'];
export type DoneEvent = Schemas['DoneEvent'];

/** RFC 9457, with the members of this service. */
export type Problem = Schemas['Problem'];
export type ProblemCode = Schemas['ProblemCode'];
/** US dollars as decimal numbers in text. */
export type SpendLimit = Schemas['SpendLimit'];
