/** `npm run bench -- NAME`: measures one thing, or everything; the last line of each is one JSON object. */
import { benchAgent } from "./agent.ts";
import { benchPipeline } from "./pipeline.ts";
import { benchSoak } from "./soak.ts";
import { benchStreams } from "./streams.ts";

type Bench = (say: (line: string) => void, flags: readonly string[]) => Promise<Record<string, number>>;

const BENCHES: Readonly<Record<string, Bench>> = {
  agent: benchAgent,
  pipeline: benchPipeline,
  soak: benchSoak,
  streams: benchStreams,
};

async function main(): Promise<number> {
  const args = process.argv.slice(2);
  const wanted = args.filter((arg) => !arg.startsWith("--"));
  const flags = args.filter((arg) => arg.startsWith("--"));
  // An hour of load is for who asks for it.
  const names = wanted.length === 0 ? Object.keys(BENCHES).filter((name) => name !== "soak") : wanted;
  const unknown = names.find((name) => BENCHES[name] === undefined);
  if (unknown !== undefined) {
    process.stderr.write(`there is no bench ${unknown}; there are: ${Object.keys(BENCHES).join(", ")}\n`);
    return 2;
  }
  for (const name of names) {
    const figures = await BENCHES[name]!((line) => process.stdout.write(`${name}: ${line}\n`), flags);
    process.stdout.write(`${JSON.stringify({ bench: name, figures })}\n`);
  }
  return 0;
}

process.exit(await main());
