/**
 * A camera that shares no code with ours: gst-rtsp-server, through the system's Python. It ends when its
 * standard input does, so with the test.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const SCRIPT = `
import sys, threading, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
user, password, launch = sys.argv[1:4]
Gst.init(None)
loop = GLib.MainLoop()
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(launch)
factory.set_shared(True)
factory.set_protocols(GstRtsp.RTSPLowerTrans.TCP)
if user:
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    role = Gst.Structure.new_empty("user")
    role.set_value("media.factory.access", True)
    role.set_value("media.factory.construct", True)
    factory.add_role_from_structure(role)
server.get_mount_points().add_factory("/yard", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
def wait():
    sys.stdin.read()
    loop.quit()
threading.Thread(target=wait, daemon=True).start()
loop.run()
`;

const SOURCE = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1";
/** Sliced pictures, as zerolatency makes them, and parameter sets within the stream. */
const LAUNCH = `( ${SOURCE} ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 config-interval=-1 )`;

export interface GstCamera {
  /** Without user and password. */
  readonly url: string;
  close(): Promise<void>;
}

/** @param credentials asked for by Digest; absent: nobody is asked. Resolves when it listens. */
export async function startGstCamera(credentials?: {
  readonly username: string;
  readonly password: string;
}): Promise<GstCamera> {
  const secrets = [credentials?.username ?? "", credentials?.password ?? ""];
  const child: ChildProcess = spawn("/usr/bin/python3", ["-c", SCRIPT, ...secrets, LAUNCH], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const failed = once(child, "exit").then(([code]) => {
    throw new Error(`the camera's program ended with ${code}`);
  });
  failed.catch(() => undefined);
  const lines = createInterface({ input: child.stdout! });
  const [port] = (await Promise.race([once(lines, "line"), failed])) as [string];
  return {
    url: `rtsp://127.0.0.1:${port}/yard`,
    async close() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "exit");
    },
  };
}
