import { streamsContract } from "../../../../contract/streams.ts";
import { makeLocalPlace } from "./local-place.ts";

streamsContract("local", makeLocalPlace);
streamsContract("local, recycled segments", async () => {
  const place = await makeLocalPlace();
  const open = () => place.open({ segmentBytes: 600, recycleSegments: "filled" });
  return { open, remove: place.remove };
});
streamsContract("local, tiny segments", async () => {
  const place = await makeLocalPlace();
  return { open: () => place.open({ segmentBytes: 600 }), remove: place.remove };
});
