// A whole response of a stand-in.

export type StandInResponse = { status: number; headers: Record<string, string>; body: string | Uint8Array };

export function jsonResponse(status: number, value: unknown, headers: Record<string, string> = {}): StandInResponse {
  return { status, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(value) };
}
