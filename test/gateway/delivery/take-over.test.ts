/**
 * One delivery on two gateways. One of them is killed in the middle of a cut, and the other goes on. They cut at
 * different sizes, so that a cut that was begun anew would show.
 */
import { clusterFact } from "../streams/stores/jetstream/cluster-fact.ts";
import { until } from "./delivery-rig.ts";
import { Pair, WITHIN_MS } from "./take-over-pair.ts";

const ROUNDS = Number(process.env.TAKE_OVERS ?? 6);

for (const step of ["built", "manifest", "confirmed", "object", "ledger"] as const) {
  clusterFact(`killed after "${step}", the cut is finished by the other gateway, once`, (ground) =>
    Pair.with(ground, async (pair) => {
      const a = await pair.start("a");
      await pair.append(1);
      await pair.judge();
      await a.arm(step, "SIGKILL");
      await pair.append(5);
      await a.gone;
      // More than the cut under way held: were it begun anew, it would end elsewhere.
      await pair.append(5);
      await pair.start("b");
      await pair.judge();
      // The first one comes back, and has nothing of its own left.
      const again = await pair.start("a");
      await again.says("log another gateway delivers");
      await pair.append(5);
      await pair.judge();
    }),
  );
}

clusterFact("whichever of two gateways is killed, and whenever, each record is delivered once", (ground) =>
  Pair.with(ground, async (pair) => {
    const fronts = { a: await pair.start("a"), b: await pair.start("b") };
    let writing = true;
    const steps = (): number => fronts.a.count("step") + fronts.b.count("step");
    const writer = (async () => {
      while (writing) {
        const before = steps();
        await pair.append(2);
        // No faster than they deliver, so that what is left at the end is little.
        await until("they get on", () => !writing || steps() !== before, WITHIN_MS);
      }
    })();
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const before = { a: fronts.a.count("step"), b: fronts.b.count("step") };
        const wanted = 1 + Math.floor(Math.random() * 12);
        const busy = (): "a" | "b" | undefined =>
          (["a", "b"] as const).find((name) => fronts[name].count("step") >= before[name] + wanted);
        await until("one of them delivers", () => busy() !== undefined, WITHIN_MS);
        const victim = busy()!;
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 30));
        await fronts[victim].kill();
        fronts[victim] = await pair.start(victim);
      }
    } finally {
      writing = false;
      await writer;
    }
    await pair.judge();
  }),
);
