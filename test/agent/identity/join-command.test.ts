/** What `headwater-agent join` does to a config, and what it says when it cannot begin. */
import assert from "node:assert/strict";
import { chmod, mkdtemp, readFile, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { pendingKey } from "../../../agent/identity/credentials.ts";
import { parseAddress } from "../../../agent/identity/gateway-address.ts";
import { changed, runJoin } from "../../../agent/identity/join-command.ts";
import { formatToken } from "../../../protocol/joining.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const urls = { https: "https://g:8443", mqtt: "mqtts://g:8883", rtsp: "rtsps://g:8322" };

test("a config keeps its comments and all that is not about the gateway", () => {
  const text = `# Mine.
device: "\${NAME:-pi}"
gateway:
  mqtt: mqtt://127.0.0.1:1883 # plain
  password: "\${PASSWORD}"
sources: [{ name: a, type: mqtt }] # one
`;
  assert.equal(
    changed(text, "pi-7", urls),
    `# Mine.
device: "pi-7"
gateway:
  mqtt: mqtts://g:8883 # plain
  https: https://g:8443
  rtsp: rtsps://g:8322
sources: [ { name: a, type: mqtt } ] # one
`,
  );
  assert.match(changed("", "pi-7", urls), /^device: pi-7\ngateway:\n {2}https:/);
  assert.throws(() => changed("a: [", "pi-7", urls), { code: "CONFIG_INVALID" });
});

test("addresses are taken as people write them", () => {
  for (const [text, host, port] of [
    ["gateway.farm.example", "gateway.farm.example", 8443],
    ["https://10.0.0.1:9443/", "10.0.0.1", 9443],
    ["[fd00::1]:1", "fd00::1", 1],
  ] as const)
    assert.deepEqual(parseAddress(text), { host, port });
  for (const text of ["", "a b", "http://a", "a:0", "a:70000", "user@a", "a/b", "-a", "fd00::1"])
    assert.throws(() => parseAddress(text), { code: "GATEWAY_ADDRESS" }, text);
});

test("what is wrong with the command or the config is said before anything is sent", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "hw-join-command-"));
  t.after(() => removeFolder(dir));
  const file = join(dir, "agent.yaml");
  const token = formatToken({ device: "pi-1", secret: Buffer.alloc(20), fingerprint: Buffer.alloc(32) });
  const run = async (...args: string[]): Promise<[number, string]> => {
    let errors = "";
    const code = await runJoin({
      args,
      environment: {},
      clock: systemClock,
      readInput: async () => `${token}\n`,
      write: () => {},
      complain: (text) => {
        errors += text;
      },
    });
    return [code, errors];
  };
  assert.equal((await run())[0], 2);
  assert.equal((await run("127.0.0.1:1", token, "--port", "1"))[0], 2);
  await writeFile(file, "dataDir: [1]\n");
  assert.equal((await run("127.0.0.1:1", token, "--config", file))[0], 2);
  await writeFile(file, 'gateway: { password: s3cr3t-s3cr3t, mqtt: "mqtt://x }\n');
  const [misread, mistake] = await run("127.0.0.1:1", token, "--config", file);
  assert.equal(misread, 2);
  assert.match(mistake, /line \d, column 1: something is missing/);
  assert.ok(!mistake.includes("s3cr3t"), mistake);
  // What was written back would have lost the password's letters.
  const latin1 = Buffer.from("gateway: {password: schlüssel99}\n", "latin1");
  await writeFile(file, latin1);
  const [refused, reason] = await run("127.0.0.1:1", token, "--config", file);
  assert.deepEqual([refused, await readFile(file)], [2, latin1]);
  assert.match(reason, /is not in UTF-8/);
  // A secret that only the service is given is no hindrance; the gateway is asked.
  await writeFile(file, 'dataDir: data\nsources: [{name: a, type: camera, password: "${ONLY_THERE}"}]\n');
  await chmod(file, 0o600);
  const [code, errors] = await run("127.0.0.1:1", "-", "--config", file);
  assert.equal(code, 1);
  assert.match(errors, /^GATEWAY_UNREACHABLE: /);
  assert.ok(!errors.includes(token));
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.match(await readFile(file, "utf8"), /ONLY_THERE/);
});

test("a join that was cut off goes on with its key; another token gets another", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "hw-pending-"));
  t.after(() => removeFolder(dir));
  let made = 0;
  const make = (): string => `key ${++made}`;
  assert.equal(await pendingKey(dir, "a", make), "key 1");
  assert.equal(await pendingKey(dir, "a", make), "key 1");
  assert.equal(await pendingKey(dir, "b", make), "key 2");
  await writeFile(join(dir, "identity-pending.json"), '{"tok');
  assert.equal(await pendingKey(dir, "b", make), "key 3");
  assert.equal((await stat(join(dir, "identity-pending.json"))).mode & 0o777, 0o600);
});

test("a data folder that is not for its user is told before the token is used", async () => {
  await assert.rejects(
    pendingKey("/sys/headwater", "hash", () => "key"),
    { code: "DATA_FOLDER" },
  );
});
