/** `npm run bench -- NAME`: measures one thing, or everything; the last line of each is one JSON object. */
import { benchPipeline } from "./pipeline.ts";

const BENCHES: Readonly<Record<string, (say: (line: string) => void) => Promise<Record<string, number>>>> = {
  pipeline: benchPipeline,
};

async function main(): Promise<number> {
  const wanted = process.argv.slice(2);
  const names = wanted.length === 0 ? Object.keys(BENCHES) : wanted;
  const unknown = names.find((name) => BENCHES[name] === undefined);
  if (unknown !== undefined) {
    process.stderr.write(`there is no bench ${unknown}; there are: ${Object.keys(BENCHES).join(", ")}\n`);
    return 2;
  }
  for (const name of names) {
    const figures = await BENCHES[name]!((line) => process.stdout.write(`${name}: ${line}\n`));
    process.stdout.write(`${JSON.stringify({ bench: name, figures })}\n`);
  }
  return 0;
}

process.exit(await main());
