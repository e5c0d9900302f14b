/** Cost must grow as the work grows: shards by themselves cost nothing, and large records only their bytes. */
import { SHARD_SWEEP } from "./gateway.ts";
import { BATCH, own, PUT_RECORDS, type StreamsBench } from "./part.ts";

export async function sweep(bench: StreamsBench): Promise<void> {
  const { say, bars, gateway } = bench;
  say("the same PutRecords at other numbers of shards and sizes of records");
  const load = { ...PUT_RECORDS, measureMs: 2_000 } as const;
  for (const shards of SHARD_SWEEP) {
    const put = await own(bench, `${shards} shards`, { ...load, stream: `shards-${shards}` }, BATCH);
    if (put) bars.note(`putRecordsShards${shards}`, put.perSecond, `${shards} shards, records/s`);
  }
  for (const [kib, records] of [
    [1, 500],
    [64, 64],
  ] as const) {
    const put = await own(bench, `${kib} KiB`, { ...load, recordBytes: kib * 1_024, records }, records);
    if (put)
      bars.note(
        `putRecords${kib}KiBMBps`,
        (put.perSecond * kib * 1_024) / 1e6,
        `records of ${kib} KiB, MB/s`,
      );
  }
  bars.note(
    "gatewayMiB",
    (await gateway.residentBytes()) / 1_048_576,
    "gateway's memory after all this, MiB",
  );
}
