import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { cobsDecode, cobsDecoder } from "../../../../agent/sources/decode/cobs.ts";
import { type Crc16, crc16 } from "../../../../agent/sources/decode/crc16.ts";
import { CsvDecoder, splitCsvLine } from "../../../../agent/sources/decode/csv.ts";
import { lineDecoder } from "../../../../agent/sources/decode/line-decoder.ts";
import { decodeNmea } from "../../../../agent/sources/decode/nmea.ts";
import { readingRecord } from "../../../../agent/sources/reading-record.ts";
import { cobsEncode, nmeaSentence } from "./encoders.ts";

const NOW_US = Date.parse("2026-06-01T12:00:00Z") * 1_000;

test("the checksums are those of the CRC catalogue", () => {
  const check = Buffer.from("123456789");
  const known: readonly [Crc16, number][] = [
    ["ccitt-false", 0x29b1],
    ["xmodem", 0x31c3],
    ["x25", 0x906e],
    ["modbus", 0x4b37],
  ];
  for (const [variant, value] of known) assert.equal(crc16(variant, check), value, variant);
});

test("COBS: what is stuffed comes out as it was, and damage does not pass", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      const stuffed = cobsEncode(bytes);
      assert.ok(!stuffed.includes(0));
      assert.deepEqual(cobsDecode(stuffed), Buffer.from(bytes));
    }),
  );
  assert.equal(cobsDecode(Buffer.of(5, 1)), undefined);
  const decode = cobsDecoder("board", { crc: "x25", crcOrder: "little", payload: "json", layout: undefined });
  const json = Buffer.from('{"t":21.5}');
  const frame = Buffer.alloc(json.length + 2);
  json.copy(frame);
  frame.writeUInt16LE(crc16("x25", json), json.length);
  assert.deepEqual(decode(cobsEncode(frame), NOW_US).readings?.[0]?.fields, { t: 21.5 });
  fc.assert(
    fc.property(fc.nat(frame.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const damaged = Buffer.from(frame);
      damaged[at]! ^= flip;
      assert.match(decode(cobsEncode(damaged), NOW_US).reason ?? "", /checksum/);
    }),
  );
});

test("a layout gives numbers their names", () => {
  const layout = ["count:u32le", "temperature:f32le", "level:i16be", "total:u64be"];
  const decode = cobsDecoder("board", { crc: "none", crcOrder: "big", payload: "layout", layout });
  const bytes = Buffer.alloc(18);
  bytes.writeUInt32LE(7, 0);
  bytes.writeFloatLE(21.5, 4);
  bytes.writeInt16BE(-3, 8);
  bytes.writeBigUInt64BE(2n ** 60n, 10);
  assert.deepEqual(decode(cobsEncode(bytes), NOW_US).readings?.[0]?.fields, {
    count: 7,
    temperature: 21.5,
    level: -3,
    total: "1152921504606846976",
  });
  assert.match(decode(cobsEncode(bytes.subarray(1)), NOW_US).reason ?? "", /17 bytes/);
});

test("CSV: header, quotes, a header again, a row that does not fit", () => {
  const decoder = new CsvDecoder("board");
  assert.match(decoder.decode("1,2", NOW_US).reason ?? "", /no header/);
  assert.deepEqual(decoder.decode("sensor,time,temperature,note", NOW_US).readings, []);
  const [one] = decoder.decode('barn,2026-06-01T11:59:59Z,21.5,"a, ""b"""', NOW_US).readings!;
  assert.deepEqual(one, {
    sensor: "barn",
    timeUs: NOW_US - 1_000_000,
    fields: { temperature: 21.5, note: 'a, "b"' },
  });
  assert.deepEqual(decoder.decode("sensor,time,temperature,note", NOW_US).readings, []);
  assert.deepEqual(decoder.decode(",,20,", NOW_US).readings?.[0], {
    sensor: "board",
    timeUs: undefined,
    fields: { temperature: 20 },
  });
  assert.match(decoder.decode("a,b", NOW_US).reason ?? "", /2 columns/);
  assert.match(decoder.decode('"a', NOW_US).reason ?? "", /quote/);
  assert.match(decoder.decode('x,,"12"34,', NOW_US).reason ?? "", /quote/);
  assert.equal(decoder.decode('x,,"12" ,', NOW_US).readings?.[0]?.fields.temperature, 12);
  const fixed = new CsvDecoder("board", {
    delimiter: ";",
    columns: ["a", "b"],
    sensorColumn: "sensor",
    timeColumn: "time",
  });
  assert.deepEqual(fixed.decode("1;x", NOW_US).readings?.[0]?.fields, { a: 1, b: "x" });
});

test("CSV cells come out as they were written", () => {
  const cell = fc.string({ maxLength: 20 }).filter((text) => !/[\r\n]/.test(text));
  fc.assert(
    fc.property(fc.array(cell, { minLength: 1, maxLength: 10 }), (cells) => {
      const line = cells.map((one) => (/[",]/.test(one) ? `"${one.replace(/"/g, '""')}"` : one)).join(",");
      assert.deepEqual(splitCsvLine(line, ","), cells);
    }),
  );
});

test("NMEA: what GPS receivers and instruments say", () => {
  const decode = (body: string) => decodeNmea(nmeaSentence(body), "gps", NOW_US);
  const [rmc] = decode("GPRMC,115959.50,A,4807.038,N,01131.000,W,022.4,084.4,010626,003.1,W").readings!;
  assert.deepEqual(rmc, {
    sensor: "gps/RMC",
    timeUs: NOW_US - 500_000,
    fields: {
      talker: "GP",
      latitude: 48.1173,
      longitude: -11.5166667,
      valid: true,
      speed_m_s: 11.5235,
      course_deg: 84.4,
    },
  });
  const [gga] = decode("GNGGA,123519,4807.038,S,01131.000,E,1,08,0.9,545.4,M,46.9,M,,").readings!;
  assert.deepEqual(gga!.fields, {
    talker: "GN",
    utc: "12:35:19",
    latitude: -48.1173,
    longitude: 11.5166667,
    quality: 1,
    satellites: 8,
    hdop: 0.9,
    altitude_m: 545.4,
    geoid_separation_m: 46.9,
  });
  assert.deepEqual(decode("WIMWV,214.8,R,10.0,K,A").readings![0]!.fields, {
    talker: "WI",
    wind_angle_deg: 214.8,
    wind_reference: "R",
    wind_speed_m_s: 2.7778,
  });
  assert.deepEqual(decode("YXXDR,C,19.5,C,ENV_T,P,1.01,B,BARO").readings![0]!.fields, {
    talker: "YX",
    ENV_T: 19.5,
    BARO: 1.01,
  });
  const [own] = decode("PMTK001,604,3").readings!;
  assert.deepEqual([own!.sensor, own!.fields], ["gps/PMTK001", { values: ["604", "3"] }]);
  assert.match(decodeNmea("$GPGGA,1*00", "gps", NOW_US).reason ?? "", /checksum/);
  assert.match(decodeNmea("$GPGGA,1", "gps", NOW_US).reason ?? "", /checksum/);
});

test("no line of any format throws; a reading always makes a record that can be stored", () => {
  const nmea = fc
    .tuple(
      fc.constantFrom("GPRMC", "GPGGA", "YXXDR", "PX", "GPZDA", "GPGLL"),
      fc.array(fc.stringMatching(/^[0-9.A-Z-]{0,12}$/), { maxLength: 20 }),
    )
    .map(([type, parts]) => Buffer.from(nmeaSentence([type, ...parts].join(","))));
  const any = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    nmea,
    fc.string().map((text) => Buffer.from(text)),
  );
  const decoders = [
    ...(["json-lines", "csv", "nmea", "text"] as const).map((format) => {
      const decoder = lineDecoder(format, "board");
      return (bytes: Uint8Array) => decoder.decode(bytes, NOW_US);
    }),
    (bytes: Uint8Array) => cobsDecoder("board", undefined)(Buffer.from(bytes), NOW_US),
  ];
  fc.assert(
    fc.property(fc.array(any, { maxLength: 5 }), (lines) => {
      for (const line of lines) {
        for (const decode of decoders) {
          const { readings, reason } = decode(line);
          if (reason !== undefined) assert.ok(reason.length > 0);
          for (const reading of readings ?? []) {
            const { payload } = readingRecord("pi-1", "sensors", reading, NOW_US);
            assert.equal((JSON.parse(Buffer.from(payload).toString()) as { device: string }).device, "pi-1");
          }
        }
      }
    }),
    { numRuns: 1_000 },
  );
});
