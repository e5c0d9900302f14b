/** Who may import whom: the house of docs/design/0001-the-house.md, held by `npm run check`. */
const program = "^(agent|gateway|firmware-sim)/";

/** A rule that forbids `from` to import `to`. */
const forbid = (name, from, to, comment) => ({ name, severity: "error", comment, from, to });

module.exports = {
  forbidden: [
    forbid("no-circular", {}, { circular: true }, "data flows one way"),
    forbid(
      "programs-are-strangers",
      { path: program },
      { path: program, pathNot: "^$1/" },
      "agent, gateway and firmware-sim never import one another",
    ),
    forbid("runtime-is-a-leaf", { path: "^runtime/" }, { path: "^(agent|gateway|firmware-sim|protocol|config|test|bench)/" }),
    forbid("protocol-stands-on-runtime", { path: "^protocol/" }, { path: "^(agent|gateway|firmware-sim|config|test|bench)/" }),
    forbid("config-stands-on-runtime", { path: "^config/" }, { path: "^(agent|gateway|firmware-sim|protocol|test|bench)/" }),
    forbid("nothing-imports-tests", { pathNot: "^(test|bench)/" }, { path: "^(test|bench)/" }),
    forbid(
      "agent-rooms-know-faces",
      { path: "^agent/(sources|uplink)/" },
      { path: "^agent/buffer/", pathNot: "^agent/buffer/(record-buffer|footage-buffer)\\.ts$" },
      "sources and uplink know only the faces in buffer/",
    ),
    forbid("agent-rooms-apart", { path: "^agent/(sources|uplink|buffer)/" }, { path: "^agent/", pathNot: "^agent/($1|buffer)/" }),
    forbid(
      "kinds-of-sources-are-strangers",
      { path: "^agent/sources/(camera|http|mqtt|serial|tail)/" },
      { path: "^agent/sources/(camera|http|mqtt|serial|tail)/", pathNot: "^agent/sources/$1/" },
      "what several kinds need stands above them",
    ),
    forbid(
      "queues-are-strangers",
      { path: "^agent/buffer/(records|footage)/" },
      { path: "^agent/buffer/(records|footage)/", pathNot: "^agent/buffer/$1/" },
      "what both queues need stands in level/",
    ),
    forbid("level-knows-no-queue", { path: "^agent/buffer/level/" }, { path: "^agent/buffer/", pathNot: "/level/" }),
    forbid("buffer-knows-nobody", { path: "^agent/buffer/" }, { path: "^agent/", pathNot: "^agent/buffer/" }),
    forbid(
      "ingest-knows-two-faces",
      { path: "^gateway/ingest/" },
      { path: "^gateway/", pathNot: "^gateway/(ingest/|streams/streams\\.ts$|video/video\\.ts$)" },
    ),
    forbid(
      "stages-know-only-streams",
      { path: "^gateway/(delivery|analytics|video)/" },
      { path: "^gateway/", pathNot: "^gateway/($1/|streams/streams\\.ts$)" },
    ),
    forbid(
      "formats-know-no-files",
      { path: "^gateway/video/depacketise/" },
      { path: "^gateway/video/", pathNot: "/video/depacketise/" },
    ),
    forbid(
      "fragments-know-no-archive",
      { path: "^gateway/video/fragments/" },
      { path: "^gateway/video/", pathNot: "/video/(fragments|depacketise)/" },
    ),
    forbid(
      "an-archive-knows-no-senders",
      { path: "^gateway/video/archive/" },
      { path: "^gateway/video/", pathNot: "/video/((archive|fragments|depacketise)/|video\\.ts$|video-counters\\.ts$)" },
    ),
    forbid("identity-knows-nobody", { path: "^gateway/identity/" }, { path: "^gateway/", pathNot: "^gateway/identity/" }),
    forbid("streams-know-nobody", { path: "^gateway/streams/" }, { path: "^gateway/", pathNot: "^gateway/streams/" }),
    forbid(
      "stores-are-strangers",
      { path: "^gateway/streams/stores/(local|jetstream)/" },
      { path: "^gateway/streams/stores/(local|jetstream)/", pathNot: "^gateway/streams/stores/$1/" },
      "what both stores need stands above them",
    ),
    forbid("segments-know-no-log", { path: "^gateway/streams/stores/local/segments/" }, { path: "^gateway/streams/stores/local/", pathNot: "/segments/" }),
    forbid(
      "a-log-knows-no-streams",
      { path: "^gateway/streams/stores/local/log/" },
      { path: "^gateway/streams/stores/local/", pathNot: "/(log|segments)/" },
    ),
    forbid(
      "a-cluster-knows-no-streams",
      { path: "^gateway/streams/stores/jetstream/cluster/" },
      { path: "^gateway/streams/stores/jetstream/", pathNot: "/jetstream/cluster/" },
    ),
    forbid(
      "a-stream-of-the-cluster-knows-no-other",
      { path: "^gateway/streams/stores/jetstream/log/" },
      { path: "^gateway/streams/stores/jetstream/", pathNot: "/jetstream/(log|cluster)/" },
    ),
    forbid(
      "consumers-and-registry-apart",
      { path: "^gateway/streams/stores/jetstream/(consumers|registry)/" },
      { path: "^gateway/streams/stores/jetstream/", pathNot: "/jetstream/($1|log|cluster)/" },
    ),
    forbid(
      "api-knows-only-faces",
      { path: "^gateway/api/" },
      {
        path: "^gateway/",
        pathNot:
          "^gateway/(api/|identity/identity\\.ts$|streams/streams\\.ts$|delivery/delivery\\.ts$|analytics/analytics\\.ts$|video/video\\.ts$|ingest/ingest\\.ts$)",
      },
    ),
    forbid("signatures-know-no-door", { path: "^gateway/api/signature/" }, { path: "^gateway/api/(door|answers|kinesis|console)/" }),
    forbid("bodies-and-answers-know-no-door", { path: "^gateway/api/(bodies|answers)/" }, { path: "^gateway/api/(door|kinesis|console)/" }),
    forbid("a-door-knows-no-calls", { path: "^gateway/api/door/" }, { path: "^gateway/api/(kinesis|console)/" }),
    forbid("wire-knows-no-calls", { path: "^gateway/api/kinesis/wire/" }, { path: "^gateway/api/", pathNot: "/kinesis/wire/|/aws-error\\.ts$" }),
    forbid(
      "calls-are-strangers",
      { path: "^gateway/api/kinesis/(puts|pages|push|manage)/" },
      { path: "^gateway/api/kinesis/(puts|pages|push|manage)/", pathNot: "^gateway/api/kinesis/($1/|pages/record-page\\.ts$)" },
      "what several kinds of calls need stands above them; what is pushed is encoded as a page is",
    ),
    forbid("console-speaks-http", { path: "^gateway/console/" }, { path: "^(gateway|agent|protocol|runtime|config)/", pathNot: "^gateway/console/" }),
    forbid("console-is-served-as-files", { pathNot: "^gateway/console/" }, { path: "^gateway/console/" }),
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { extensions: [".ts", ".js"] },
  },
};
