import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { LastUsed, type Linked } from "../../../../../../gateway/streams/stores/local/log/last-used.ts";

interface Thing extends Linked<Thing> {
  readonly name: number;
}

test("the order is that of a Map in which each is set anew when it is used", () => {
  const step = fc.record({ name: fc.nat(5), isUsed: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const things = Array.from(
        { length: 6 },
        (_, name): Thing => ({ name, older: undefined, newer: undefined }),
      );
      const list = new LastUsed<Thing>();
      const model = new Set<number>();
      for (const { name, isUsed } of steps) {
        model.delete(name);
        if (isUsed) {
          model.add(name);
          list.touch(things[name]!);
        } else list.remove(things[name]!);
        assert.deepEqual(
          Array.from(list, (thing) => thing.name),
          [...model],
        );
        assert.deepEqual([list.size, list.oldest?.name], [model.size, [...model][0]]);
      }
    }),
  );
});
