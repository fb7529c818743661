//! The whole path as a user walks it, each party in a process of its own: a local chain that is kept on disk, a publisher,
//! a worker, a client, and an auditor who knows nothing but the network file and the job's address. And nothing of prompt
//! or answer is left anywhere.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tdx_simulator::{SimulatedPlatform, TdIdentity};

const PROMPT_CANARY: &str = "prompt-canary-5e0c41";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../inference/tests/golden/q8_0.gguf");
const PATIENCE: Duration = Duration::from_secs(90);

/// A folder with everything that the processes write, logs apart.
struct World {
    folder: tempfile::TempDir,
    logs: tempfile::TempDir,
}

/// A process that goes on until it is dropped.
struct Service {
    child: Child,
    /// The first object on its standard output.
    facts: Value,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), logs: tempfile::tempdir().unwrap() };
        world.configure("1000000000");
        std::fs::write(world.at("passphrase"), "a passphrase of this test\n").unwrap();
        world
    }

    /// A worker that claims jobs of this deposit or more, nanoTON.
    fn configure(&self, claim_above: &str) {
        let config = format!(
            "network = \"chain/network.json\"\ndata_dir = \"worker\"\n[worker]\nmodel = {MODEL:?}\n\
             attestation = \"simulator\"\nstake_nanoton = \"10000000000\"\ngas_float_nanoton = \"500000000\"\n\
             claim_above_nanoton = {claim_above:?}\n\
             [worker.prices_nanoton_per_1k]\ninput = \"1000000\"\ncached_input = \"500000\"\noutput = \"4000000\"\n"
        );
        std::fs::write(self.at("chrysalis.toml"), config).unwrap();
    }

    /// The steps of a job, in order.
    fn steps(&self, job: &str) -> Vec<Value> {
        let (status, _) = self.json(&["job", "status", job, "--json"]);
        status["steps"].as_array().unwrap().iter().map(|step| step["step"].clone()).collect()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chrysalis"));
        command.args(arguments).current_dir(self.folder.path());
        command.env("CHRYSALIS_LOG", "trace").env("CHRYSALIS_NETWORK", "chain/network.json");
        command
    }

    fn log(&self, name: &str) -> File {
        File::options().create(true).append(true).open(self.logs.path().join(name)).unwrap()
    }

    /// Starts a process and waits for its facts; everything it says goes to the logs.
    fn service(&self, name: &str, arguments: &[&str]) -> Service {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log(name))
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        let facts = loop {
            let Some(line) = lines.next() else {
                let log = std::fs::read_to_string(self.logs.path().join(name)).unwrap();
                panic!("{name} ended: {log}");
            };
            said.push_str(&line.unwrap());
            if let Ok(facts) = serde_json::from_str(&said) {
                break facts;
            }
        };
        let mut log = self.log(name);
        log.write_all(said.as_bytes()).unwrap();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writeln!(log, "{line}").unwrap();
            }
        });
        Service { child, facts }
    }

    fn localnet(&self) -> Service {
        let ports = ["--http-port", "0", "--liteserver-port", "0"];
        let mut arguments = vec!["localnet", "--data-dir", "chain", "--block-interval-ms", "100"];
        arguments.extend(ports);
        self.service("localnet", &arguments)
    }

    fn worker(&self) -> Service {
        self.service("worker", &WORKER)
    }

    /// Runs a command to its end, with `input` on its standard input; what it says on standard error goes to the logs.
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        self.log(arguments[0]).write_all(&output.stderr).unwrap();
        output
    }

    /// The one object that a command prints, and its exit status.
    fn json(&self, arguments: &[&str]) -> (Value, Option<i32>) {
        let output = self.run(arguments, "");
        let said = String::from_utf8_lossy(&output.stdout);
        let object = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{arguments:?}: {said} {}", String::from_utf8_lossy(&output.stderr)));
        (object, output.status.code())
    }

    /// Posts a job as soon as the worker is ready for it; the job's address.
    fn post(&self, worker: &Value, prompt: &str) -> String {
        let (address, model_id) = (worker["worker"].as_str().unwrap(), worker["model_id"].as_str().unwrap());
        let arguments = [
            "job",
            "post",
            "--mnemonic",
            "chain/client.words",
            "--dangerous-accept-simulated",
            "--worker",
            address,
            "--model-id",
            model_id,
            "--max-output-tokens",
            "24",
            "--json",
        ];
        let until = Instant::now() + PATIENCE;
        loop {
            let output = self.run(&arguments, prompt);
            if output.status.success() {
                let posted: Value = serde_json::from_slice(&output.stdout).unwrap();
                return posted["job"].as_str().unwrap().to_owned();
            }
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                error.contains("is no worker of this network") || error.contains("cannot take"),
                "{error}"
            );
            assert!(Instant::now() < until, "{error}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn verify(&self, job: &str) -> (Value, Option<i32>) {
        self.json(&["verify", job, "--dangerous-accept-simulated", "--json"])
    }

    /// The owner registers by hand while the worker is away: what it would cost, what it costs, and that it counts.
    fn attests(&self, facts: &Value) {
        let mut register = vec!["attest", "register", "--json"];
        register.extend(&WORKER[1..]);
        register.push("--dry-run");
        let (rehearsed, exit) = self.json(&register);
        assert_eq!((rehearsed["refused"].as_str(), exit), (None, Some(0)), "{rehearsed:#}");
        register.pop();
        let (done, exit) = self.json(&register);
        assert_eq!((done["done"].as_bool(), exit), (Some(true), Some(0)), "{done:#}");
        assert_eq!(done["registration_seqno"], rehearsed["registration_seqno"]);
        assert_eq!(done["receipt_key"], facts["receipt_key"]);
        let path = |object: &Value| -> Vec<(String, String, u64)> {
            let all = object["transactions"].as_array().unwrap().iter();
            all.map(|one| {
                let text = |name: &str| one[name].as_str().unwrap().to_owned();
                (text("contract"), text("message"), one["gas_used"].as_u64().unwrap())
            })
            .collect()
        };
        assert_eq!(path(&rehearsed), path(&done));
        let named: Vec<_> =
            path(&done).into_iter().map(|(contract, message, _)| (contract, message)).collect();
        let expected = [
            ("wallet", "external"),
            ("Attestor", "verify_quote"),
            ("Registry", "quote_verified"),
            ("Platform", "serve_worker"),
            ("Worker", "attestation_registered"),
            ("wallet", "excesses"),
        ];
        assert_eq!(named, expected.map(|(contract, message)| (contract.to_owned(), message.to_owned())));
        let fees = |object: &Value| object["fees_nanoton"].as_u64().unwrap();
        // Rent runs on between the two.
        assert!(fees(&rehearsed).abs_diff(fees(&done)) < 1_000_000, "{} {}", fees(&rehearsed), fees(&done));
        assert!(fees(&done) < 85_000_000, "a registration cost {} nanoTON", fees(&done));
        eprintln!("a registration costs {} nanoTON and {} gas", fees(&done), done["gas_used"]);

        // Another machine under the same root, as its owner would look at its quote.
        let simulator: Value =
            serde_json::from_slice(&std::fs::read(self.at("chain/simulator.json")).unwrap()).unwrap();
        let seed = hex::decode(simulator["seed"].as_str().unwrap()).unwrap().try_into().unwrap();
        let made_at_s = simulator["made_at_s"].as_u64().unwrap();
        let image = TdIdentity::of_image("chrysalis worker, local chain");
        let quote = SimulatedPlatform::new(&seed, made_at_s).unwrap().quote(&[7; 64], &image);
        std::fs::write(self.at("quote"), &quote).unwrap();
        let inspect = ["attest", "inspect", "quote", "--dangerous-accept-simulated", "--json"];
        let (found, exit) = self.json(&inspect);
        assert_eq!((found["holds"].as_bool(), exit), (Some(true), Some(0)), "{found:#}");
        assert_eq!(found["report_data"], "07".repeat(64));
        assert_eq!(
            (&found["attestor_lacks"], &found["tcb_status"]),
            (&Value::Array(vec![]), &"UpToDate".into())
        );
        std::fs::write(self.at("quote"), &quote[..600]).unwrap();
        let cut = self.run(&inspect, "");
        assert!(String::from_utf8_lossy(&cut.stderr).contains("the quote ends within its"));

        // Everything the Attestor holds was posted with the first registration.
        let post = ["attest", "post-collateral", "--mnemonic", "chain/client.words", "--dry-run", "--json"];
        let (post, exit) = self.json(&post);
        assert_eq!((post["posted"].as_array().map(Vec::len), exit), (Some(0), Some(0)), "{post:#}");
        // Nobody may report a machine that is not revoked.
        let worker = facts["worker"].as_str().unwrap();
        let report =
            ["attest", "report-revocation", "--mnemonic", "chain/client.words", "--worker", worker, "--json"];
        for dry_run in [true, false] {
            let mut report = report.to_vec();
            if dry_run {
                report.push("--dry-run");
            }
            let (refused, exit) = self.json(&report);
            let words = refused["refused"].as_str().unwrap_or_default().to_owned();
            assert!(words.starts_with("report_revocation was refused: WrongState"), "{refused:#}");
            assert_eq!(exit, Some(1));
        }
    }

    /// The audit of a job that is over holds, and every nanoTON is accounted for.
    fn holds(&self, job: &str, status: &str) {
        let (audit, exit) = self.verify(job);
        assert_eq!(
            (audit["status"].as_str(), audit["conclusion"].as_str()),
            (Some(status), Some("holds")),
            "{audit:#}"
        );
        assert_eq!((audit["holds"].as_bool(), exit), (Some(true), Some(0)));
        let checks = audit["checks"].as_array().unwrap();
        assert!(checks.iter().all(|check| check["passed"] == true && check["proves"].is_string()));
        let ledger = audit["ledger"].as_object().unwrap();
        let amount = |name: &str| ledger[name].as_u64().unwrap();
        let out: u64 =
            ledger.keys().filter(|name| *name != "received_nanoton").map(|name| amount(name)).sum();
        assert_eq!(amount("received_nanoton"), out, "{ledger:?}");
    }
}

impl Service {
    fn stops_when_asked(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

const WORKER: [&str; 5] =
    ["worker", "--owner-mnemonic", "chain/worker.words", "--key-passphrase-file", "passphrase"];

#[test]
fn every_party_is_a_process_of_its_own_and_no_text_is_left_anywhere() {
    let world = World::new();
    let chain = world.localnet();
    let publish = ["model", "register", MODEL, "--mnemonic", "chain/publisher.words", "--royalty-bps", "500"];
    assert!(world.run(&publish, "").status.success());
    let again = world.run(&publish, "");
    assert!(String::from_utf8_lossy(&again.stderr).contains("registered already"));
    let worker = world.worker();

    // A second worker on the same data, which would answer jobs twice.
    let second = world.run(&WORKER, "");
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && error.contains("in use by another process"), "{error}");

    let job = world.post(&worker.facts, &format!("say {PROMPT_CANARY} back to me\n"));
    let result = ["job", "result", &job, "--mnemonic", "chain/client.words", "--wait", "--json"];
    let (result, exit) = world.json(&result);
    assert_eq!((result["state"].as_str(), exit), (Some("settled"), Some(0)), "{result:#}");
    assert_eq!(result["transcript_matches"], true);
    let answer = result["answer"].as_str().unwrap().to_owned();
    assert!(answer.len() >= 12, "too short to be looked for: {answer:?}");
    world.holds(&job, "settled");
    assert_eq!(world.steps(&job), ["posted", "settled"], "too little is at stake for a claim");

    // Somebody else's wallet opens nothing.
    let stranger = world.run(&["job", "result", &job, "--mnemonic", "chain/owner.words"], "");
    assert!(!stranger.status.success() && stranger.stdout.is_empty());

    // A job of a worker that is gone: unfinished, then taken back.
    let facts = worker.facts.clone();
    drop(worker);
    let open = world.post(&facts, &format!("again {PROMPT_CANARY}"));
    let (audit, exit) = world.verify(&open);
    assert_eq!((audit["conclusion"].as_str(), exit), (Some("unfinished"), Some(3)), "{audit:#}");
    let failed: Vec<_> =
        audit["checks"].as_array().unwrap().iter().filter(|check| check["passed"] == false).collect();
    assert!(failed.len() == 1 && failed[0]["name"] == "ended", "{failed:?}");
    assert!(failed[0]["detail"].as_str().unwrap().starts_with("not finished: open"));
    let (early, exit) = world.json(&["job", "result", &open, "--mnemonic", "chain/client.words", "--json"]);
    assert_eq!((early["state"].as_str(), exit), (Some("open"), Some(3)));
    let expire = world.run(&["job", "expire", &open, "--mnemonic", "chain/client.words"], "");
    assert!(String::from_utf8_lossy(&expire.stderr).contains("the job has time until"));
    let cancel = ["job", "cancel", &open, "--mnemonic", "chain/client.words", "--json"];
    let (cancelled, exit) = world.json(&cancel);
    assert_eq!((cancelled["state"].as_str(), exit), (Some("cancelled"), Some(0)));
    world.holds(&open, "cancelled");

    // The chain goes on where it was, at another port, and so does the worker with its sealed keys.
    drop(chain);
    let gone = world.run(&["verify", &job, "--dangerous-accept-simulated"], "");
    assert_eq!(gone.status.code(), Some(1));
    let _chain = world.localnet();
    world.holds(&job, "settled");
    world.configure("1");
    let worker = world.worker();
    assert_eq!(worker.facts, facts);
    let third = world.post(&worker.facts, "and once more");
    let wait = ["job", "result", &third, "--mnemonic", "chain/client.words", "--wait", "--json"];
    assert_eq!(world.json(&wait).0["state"], "settled");
    world.holds(&third, "settled");
    assert_eq!(world.steps(&third), ["posted", "claimed", "settled"]);

    // Asked to stop, the worker stops; with keys that nobody keeps it attests anew, and goes on.
    worker.stops_when_asked();
    let mut ephemeral = WORKER[..3].to_vec();
    ephemeral.push("--ephemeral-keys");
    world.attests(&facts);
    let worker = world.service("worker", &ephemeral);
    assert_eq!(worker.facts["worker"], facts["worker"]);
    assert_ne!(worker.facts["receipt_key"], facts["receipt_key"]);
    let until = Instant::now() + PATIENCE;
    let fourth = loop {
        // Until the chain has the new keys, a job goes to the old ones, which nobody has any more: it stays open.
        let job = world.post(&worker.facts, "with new keys");
        let asked = Instant::now();
        let state = loop {
            let state = world.json(&["job", "status", &job, "--json"]).0["state"].clone();
            if state != "open" || asked.elapsed() > Duration::from_secs(5) {
                break state;
            }
        };
        let wait = ["job", "result", &job, "--mnemonic", "chain/client.words", "--wait", "--json"];
        if state != "open" && world.json(&wait).0["state"] == "settled" {
            break job;
        }
        assert!(Instant::now() < until);
    };
    world.holds(&fourth, "settled");
    worker.stops_when_asked();

    // What nobody may accept by accident.
    let strict = world.run(&["verify", &job], "");
    assert!(String::from_utf8_lossy(&strict.stderr).contains("--dangerous-accept-simulated"));
    let nothing = format!("0:{}", "7".repeat(64));
    let missing = world.run(&["verify", &nothing, "--dangerous-accept-simulated"], "");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no job is at"));

    let mut seen = 0;
    for place in [world.folder.path(), world.logs.path()] {
        assert_eq!(search(place, &[PROMPT_CANARY, &answer], &mut seen), None);
    }
    assert!(seen >= 12, "only {seen} files were searched");
}

/// Looks for the texts, in the forms that logs and files give bytes, in every file below `folder`: where the first is.
/// Counts the files.
fn search(folder: &Path, texts: &[&str], seen: &mut usize) -> Option<String> {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = search(&path, texts, seen) {
                return Some(found);
            }
            continue;
        }
        *seen += 1;
        let bytes = std::fs::read(&path).unwrap();
        for form in texts.iter().flat_map(|text| forms(text)) {
            if bytes.windows(form.len()).any(|window| window == form.as_bytes()) {
                return Some(format!("{form:?} is in {}", path.display()));
            }
        }
    }
    None
}

fn forms(text: &str) -> Vec<String> {
    let escaped = serde_json::to_string(text).unwrap();
    // Base64 of the same text at each of the three places it can begin at, without what its neighbours decide.
    let shifted = (0..3).map(|shift| {
        let encoded = STANDARD.encode([vec![b' '; shift], text.as_bytes().to_vec()].concat());
        encoded[4..encoded.len() - 4].to_owned()
    });
    let mut forms: Vec<String> = shifted.collect();
    forms.extend([
        text.to_owned(),
        escaped[1..escaped.len() - 1].to_owned(),
        hex::encode(text),
        hex::encode_upper(text),
        format!("{:?}", text.as_bytes()),
        format!("{text:?}"),
    ]);
    forms
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let text = "planted-canary-77aa";
    for planted in [
        text.to_owned(),
        hex::encode(text),
        format!("{:?}", text.as_bytes()),
        STANDARD.encode(text),
        STANDARD.encode(format!("{{\"content\":\"{text}\"}}")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("deep/file"), format!("before {planted} behind")).unwrap();
        let mut seen = 0;
        assert!(search(folder.path(), &[text], &mut seen).is_some(), "{planted} was not found");
        assert_eq!(search(folder.path(), &["another-secret-4e11"], &mut seen), None);
        assert_eq!(seen, 2);
    }
}
