// Starts the local chain (`cargo build -p localnet --example localnet`) and reads what it took.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const binary = process.env.LOCALNET
  ?? `${process.env.CARGO_TARGET_DIR ?? `${root}/target`}/debug/examples/localnet`;

export async function start(intervalMs = 100) {
  const child = spawn(binary, ["0", "0", String(intervalMs)], { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  const facts = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`the local chain ended with ${code}`)));
    lines.on("line", (line) => line.startsWith("{") && resolve(JSON.parse(line)));
  });
  const post = async (path, body) => {
    const response = await fetch(`${facts.http}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return { status: response.status, ...(await response.json()) };
  };
  return {
    ...facts,
    endpoint: `${facts.http}/api/v2/jsonRPC`,
    post,
    get: async (path) => {
      const response = await fetch(`${facts.http}${path}`);
      return { status: response.status, ...(await response.json()) };
    },
    give: async (address, nanoton) => {
      const given = await post("/localnet/give", { address: address.toString(), amount_nanoton: String(nanoton) });
      if (!given.ok) throw new Error(given.error);
    },
    stop: () => {
      child.removeAllListeners("exit");
      child.kill();
    },
  };
}

export async function until(what, limitMs = 10_000) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const found = await what();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
