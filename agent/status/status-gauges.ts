/** What /metrics shows of the agent's health and of its clock; asked for only when somebody looks. */
import type { Metrics } from "../../runtime/metrics.ts";
import type { AgentStatus } from "./agent-status.ts";

const KNOWN_BY = ["system", "ntp", "gateway"] as const;

export function statusGauges(metrics: Metrics, status: () => AgentStatus): void {
  metrics.gauge(
    "headwater_agent_healthy",
    "1 while the agent does its work, 0 while it cannot, as /healthz says",
    [],
    function () {
      this.set(status().health.state === "failing" ? 0 : 1);
    },
  );
  metrics.gauge("headwater_agent_warnings", "Conditions that somebody should look at", [], function () {
    this.set(status().health.warnings.length);
  });
  metrics.gauge(
    "headwater_agent_clock_known",
    "1 for what the time of day is known by; all 0 while it is not, and nothing is uploaded",
    ["by"],
    function () {
      const { known, by } = status().clock;
      for (const one of KNOWN_BY) this.set({ by: one }, known && one === (by ?? "system") ? 1 : 0);
    },
  );
  metrics.gauge(
    "headwater_agent_clock_bound_seconds",
    "How far off the clock can be; absent while that is not known",
    [],
    function () {
      const { boundMs } = status().clock;
      if (boundMs === undefined) this.remove();
      else this.set(boundMs / 1_000);
    },
  );
}
