import { streamsContract } from "../../contract/streams.ts";
import { makeLocalPlace } from "./local-place.ts";

streamsContract("local", makeLocalPlace);
streamsContract("local, tiny segments", async () => {
  const place = await makeLocalPlace();
  return { open: () => place.open({ segmentBytes: 600 }), remove: place.remove };
});
