// The SQL that Workers Analytics Engine documents, and a check that a query uses nothing else: the queries run in ClickHouse here,
// which allows far more. Pages as of 2026-11: https://developers.cloudflare.com/analytics/analytics-engine/sql-reference/

const REFERENCE = 'https://developers.cloudflare.com/analytics/analytics-engine/sql-reference';

/** The documented functions that the project may use, by the page that describes them. Names as there, in any case. */
export const FUNCTIONS: Record<string, readonly string[]> = {
  [`${REFERENCE}/aggregate-functions/`]: ['count', 'sum', 'avg', 'min', 'max', 'quantileExactWeighted', 'countIf', 'sumIf', 'avgIf', 'argMax', 'argMin'],
  [`${REFERENCE}/conditional-functions/`]: ['if'],
  [`${REFERENCE}/date-time-functions/`]: ['now', 'toDateTime', 'toUnixTimestamp', 'toStartOfInterval', 'toStartOfDay', 'toStartOfHour', 'toStartOfFiveMinutes', 'toStartOfMinute'],
  [`${REFERENCE}/mathematical-functions/`]: ['intDiv', 'round', 'floor', 'ceil'],
  [`${REFERENCE}/type-conversion-functions/`]: ['toUInt8', 'toUInt32'],
};

/** The documented clauses and operators, by page. Not there: UNION, JOIN, WITH, CASE, window functions, SELECT DISTINCT. */
export const WORDS: Record<string, readonly string[]> = {
  [`${REFERENCE}/statements/`]: ['SELECT', 'AS', 'FROM', 'WHERE', 'GROUP', 'BY', 'HAVING', 'ORDER', 'ASC', 'DESC', 'LIMIT'],
  [`${REFERENCE}/operators/`]: ['AND', 'OR', 'NOT', 'IN', 'BETWEEN', 'LIKE'],
  // The words within `INTERVAL '1' DAY`.
  [`${REFERENCE}/date-time-functions/#tostartofinterval`]: ['INTERVAL', 'MINUTE', 'HOUR', 'DAY'],
};

/** https://developers.cloudflare.com/analytics/analytics-engine/sql-api/#table-structure */
export const COLUMNS: readonly string[] = [
  'timestamp',
  '_sample_interval',
  'index1',
  ...Array.from({ length: 20 }, (_, n) => [`blob${n + 1}`, `double${n + 1}`]).flat(),
];

/** The dataset of the binding `METRICS`. */
export const DATASET = 'ai_sessions';

const OPERATORS = ['+', '-', '*', '/', '%', '=', '<', '>', '<=', '>=', '<>', '!='];

const TOKEN = /\s+|'(?:[^'\\]|\\.)*'|\d+(?:\.\d+)?|[A-Za-z_]\w*|<=|>=|<>|!=|./gsy;

/** Removes comments: the SQL API documents them in no statement. */
export const withoutComments = (sql: string): string => sql.replace(/^--.*\n/gm, '').trim();

/** What the query uses that the platform does not document; empty for a good query. */
export function undocumented(query: string): string[] {
  const tokens = [...query.matchAll(TOKEN)].map(([token]) => token).filter((token) => token.trim() !== '');
  const functions = new Set(Object.values(FUNCTIONS).flat().map((name) => name.toLowerCase()));
  const words = new Set(Object.values(WORDS).flat());
  const aliases = new Set(tokens.filter((_, at) => tokens[at - 1]?.toUpperCase() === 'AS'));
  const found: string[] = [];
  for (const [at, token] of tokens.entries()) {
    const [before, next] = [tokens[at - 1]?.toUpperCase(), tokens[at + 1]];
    if (/^[A-Za-z_]/.test(token)) {
      const isWord = words.has(token.toUpperCase());
      if (next === '(' && !isWord) {
        if (!functions.has(token.toLowerCase())) found.push(`function ${token}`);
      } else if (before === 'FROM') {
        if (token !== DATASET) found.push(`table ${token}`);
      } else if (!isWord && !COLUMNS.includes(token) && !aliases.has(token)) found.push(`word ${token}`);
      if (token.toUpperCase() === 'FROM' && next !== DATASET && next !== '(') found.push(`table ${next}`);
    } else if (token === ',' && isInFrom(tokens, at)) found.push('a second table');
    else if (!/^['\d]/.test(token) && !['(', ')', ','].includes(token) && !OPERATORS.includes(token)) found.push(`operator ${token}`);
  }
  return [...new Set(found)];
}

/** Whether a comma follows the table of a FROM. */
const isInFrom = (tokens: string[], at: number): boolean => tokens[at - 1] === DATASET && tokens[at - 2]?.toUpperCase() === 'FROM';
