/** The page's way to the gateway: JSON over HTTP with the session cookie, nothing else. */
import type { FootageFragment, GatewayState, NewestWindows, RecentRows, SensorSummary } from "./contract.ts";

const TIMEOUT_MS = 8_000;

/** There is no session, or it has ended. */
export class SignedOutError extends Error {}

/** The gateway answered, but not with what was asked for. */
export class GatewayError extends Error {}

export async function signIn(accessKeyId: string, secretAccessKey: string): Promise<void> {
  await request("/api/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ accessKeyId, secretAccessKey }),
  });
}

export async function signOut(): Promise<void> {
  await request("/api/session", { method: "DELETE" });
}

export function fetchState(): Promise<GatewayState> {
  return fetchJson("/api/state");
}

export function fetchSensors(stream: string): Promise<SensorSummary[]> {
  return fetchJson(`/api/sensors?${query({ stream })}`);
}

export function fetchReadings(stream: string, key: string, seconds: number): Promise<RecentRows> {
  return fetchJson(`/api/readings?${query({ stream, key, seconds: String(seconds) })}`);
}

export function fetchWindows(statement: string, limit: number): Promise<NewestWindows> {
  return fetchJson(`/api/windows?${query({ statement, limit: String(limit) })}`);
}

export async function fetchFootage(camera: string, fromUs: number, toUs: number): Promise<FootageFragment[]> {
  const range = { camera, fromUs: String(Math.floor(fromUs)), toUs: String(Math.ceil(toUs)), limit: "100" };
  const { fragments } = await fetchJson<{ fragments: FootageFragment[] }>(`/api/footage?${query(range)}`);
  return fragments;
}

export function fragmentAddress(camera: string, id: string): string {
  return `/api/footage/${encodeURIComponent(camera)}/${encodeURIComponent(id)}.mp4`;
}

export function liveReadingsAddress(stream: string, key: string): string {
  return socketAddress(`/api/live/readings?${query({ stream, key })}`);
}

export function liveCameraAddress(camera: string): string {
  return socketAddress(`/api/live/camera/${encodeURIComponent(camera)}`);
}

function socketAddress(path: string): string {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

function query(values: Record<string, string>): string {
  return new URLSearchParams(values).toString();
}

async function fetchJson<T>(path: string): Promise<T> {
  return (await (await request(path, {})).json()) as T;
}

async function request(path: string, init: RequestInit): Promise<Response> {
  const response = await fetch(path, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (response.ok) return response;
  const detail = await response.json().catch(() => undefined);
  const message = describe(detail) ?? `the gateway answered with status ${response.status}`;
  throw response.status === 401 ? new SignedOutError(message) : new GatewayError(message);
}

function describe(body: unknown): string | undefined {
  const error = (body as { error?: { message?: unknown; hint?: unknown } } | undefined)?.error;
  if (typeof error?.message !== "string") return undefined;
  return typeof error.hint === "string" ? `${error.message} (${error.hint})` : error.message;
}
