/** What the service takes and answers, as types: its OpenAPI document by other means. */

export interface NewSession {
  /** 1000 to 10000 characters after cleaning (text.ts). */
  input_text: string;
  /** One of `GET /models`. */
  model: string;
}

export interface Candidate {
  id: string;
  front: string;
  back: string;
  /** One sentence on what the card tests. */
  prompt: string;
}

export interface Created {
  id: string;
  /** The model's answer broke off; what came before is here. */
  partial: boolean;
  candidates: Candidate[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  cost: number;
}

export interface SessionSummary {
  id: string;
  status: 'generating' | 'completed' | 'failed';
  model: string;
  partial: boolean;
  error: ProblemCode | null;
  created_at: string;
  ended_at: string | null;
  usage: Usage | null;
  candidate_count: number;
}

export interface Session extends Omit<SessionSummary, 'candidate_count'> {
  /** Only while it is generating. */
  candidate_count?: number;
  /** Empty unless completed. */
  candidates: Candidate[];
}

export interface SessionPage {
  sessions: SessionSummary[];
  /** For `before` of the next page. */
  next: string | null;
}

export interface Model {
  id: string;
  default: boolean;
}

export interface FieldError {
  field: string;
  code: string;
  message: string;
  min?: number;
  max?: number;
  actual?: number;
}

export type ProblemCode =
  | 'malformed_json'
  | 'validation_failed'
  | 'invalid_parameter'
  | 'missing_token'
  | 'invalid_token'
  | 'expired_token'
  | 'anonymous_not_allowed'
  | 'not_found'
  | 'method_not_allowed'
  | 'idempotency_in_progress'
  | 'not_running'
  | 'cancelled'
  | 'body_too_large'
  | 'unsupported_media_type'
  | 'idempotency_key_reused'
  | 'rate_limited'
  | 'ai_unavailable'
  | 'ai_timeout'
  | 'ai_invalid_response'
  | 'ai_refused'
  | 'ai_misconfigured'
  | 'database_error'
  | 'rate_limiter_unavailable'
  | 'auth_unavailable'
  | 'internal';

/** RFC 9457, with the members of this service. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: ProblemCode;
  request_id: string;
  retryable?: boolean;
  errors?: FieldError[];
  'violated-policies'?: string[];
}
