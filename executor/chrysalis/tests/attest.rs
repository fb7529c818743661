//! `chrysalis attest` and a worker whose collateral comes from a PCCS, against a running local chain: fetched at the
//! start, kept, posted by anybody; and a platform that its vendor revokes, whose worker then cannot claim.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tdx_simulator::{FMSPC, Period, Periods, Profile, Revocations, SimulatedPlatform, TdIdentity};
use verifier::Collateral;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../inference/tests/golden/q8_0.gguf");
const PATIENCE: Duration = Duration::from_secs(90);

/// A PCCS with one platform's collateral.
struct Pccs {
    address: SocketAddr,
    collateral: Arc<Mutex<Option<Collateral>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Pccs {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let collateral: Arc<Mutex<Option<Collateral>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (has, seen) = (collateral.clone(), asked.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                let Some(path) = request.split(' ').nth(1) else { continue };
                seen.lock().unwrap().push(path.to_owned());
                let answer = has.lock().unwrap().as_ref().and_then(|collateral| answer(collateral, path));
                let not_found = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
                // Whoever asked may have gone.
                let _ = stream.write_all(&answer.unwrap_or(not_found));
            }
        });
        Self { address, collateral, asked }
    }

    fn serves(&self, collateral: &Collateral) {
        *self.collateral.lock().unwrap() = Some(collateral.clone());
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn answer(collateral: &Collateral, path: &str) -> Option<Vec<u8>> {
    let text = |member: &str, document: &str, signature: &[u8]| {
        format!("{{\"{member}\":{document},\"signature\":\"{}\"}}", hex::encode(signature)).into_bytes()
    };
    let (header, chain, body) = match path.split('?').next()? {
        "/sgx/certification/v4/pckcrl" => {
            ("SGX-PCK-CRL-Issuer-Chain", &collateral.pck_crl_issuer_chain, collateral.pck_crl.clone())
        }
        "/sgx/certification/v4/rootcacrl" => {
            ("X-None", &String::new(), hex::encode(&collateral.root_ca_crl).into_bytes())
        }
        "/tdx/certification/v4/tcb" => (
            "TCB-Info-Issuer-Chain",
            &collateral.tcb_info_issuer_chain,
            text("tcbInfo", &collateral.tcb_info, &collateral.tcb_info_signature),
        ),
        "/tdx/certification/v4/qe/identity" => (
            "SGX-Enclave-Identity-Issuer-Chain",
            &collateral.qe_identity_issuer_chain,
            text("enclaveIdentity", &collateral.qe_identity, &collateral.qe_identity_signature),
        ),
        _ => return None,
    };
    let chain: String = chain.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let head = format!("HTTP/1.1 200 OK\r\n{header}: {chain}\r\ncontent-length: {}\r\n\r\n", body.len());
    Some([head.as_bytes(), &body].concat())
}

/// A folder with all files, and where processes run.
struct World {
    folder: tempfile::TempDir,
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

const WORKER: [&str; 5] =
    ["worker", "--owner-mnemonic", "chain/worker.words", "--key-passphrase-file", "passphrase"];

impl World {
    fn new(pccs: &Pccs) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let config = format!(
            "network = \"chain/network.json\"\ndata_dir = \"worker\"\n[worker]\nmodel = {MODEL:?}\n\
             attestation = \"simulator\"\npccs_url = {:?}\nstake_nanoton = \"10000000000\"\n\
             gas_float_nanoton = \"500000000\"\n[worker.prices_nanoton_per_1k]\ninput = \"1000000\"\n\
             cached_input = \"500000\"\noutput = \"4000000\"\n",
            pccs.url()
        );
        std::fs::write(world.at("chrysalis.toml"), config).unwrap();
        std::fs::write(world.at("passphrase"), "a passphrase of this test\n").unwrap();
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chrysalis"));
        command.args(arguments).current_dir(self.folder.path());
        command.env("CHRYSALIS_LOG", "info").env("CHRYSALIS_NETWORK", "chain/network.json");
        command
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    fn service(&self, arguments: &[&str]) -> Service {
        let log = File::options().create(true).append(true).open(self.at("log")).unwrap();
        let mut child =
            self.command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        let facts = loop {
            let Some(line) = lines.next() else { panic!("{arguments:?} ended: {}", self.log()) };
            said.push_str(&line.unwrap());
            if let Ok(facts) = serde_json::from_str(&said) {
                break facts;
            }
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Service { child, facts }
    }

    fn localnet(&self) -> Service {
        let ports = ["--http-port", "0", "--liteserver-port", "0"];
        let mut arguments = vec!["localnet", "--data-dir", "chain", "--block-interval-ms", "100"];
        arguments.extend(ports);
        self.service(&arguments)
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> (Value, Option<i32>) {
        let output = self.run(arguments, "");
        let said = String::from_utf8_lossy(&output.stdout);
        let object = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{arguments:?}: {said} {}", String::from_utf8_lossy(&output.stderr)));
        (object, output.status.code())
    }

    fn error(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Posts a job; its address, or why it was not posted.
    fn post(&self, worker: &Value) -> Result<String, String> {
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
            "8",
            "--json",
        ];
        let output = self.run(&arguments, "say something\n");
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let posted: Value = serde_json::from_slice(&output.stdout).unwrap();
        Ok(posted["job"].as_str().unwrap().to_owned())
    }

    fn post_when_ready(&self, worker: &Value) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.post(worker) {
                Ok(job) => return job,
                Err(error) => assert!(Instant::now() < until, "{error} {}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn simulator(&self) -> ([u8; 32], u64) {
        let file: Value =
            serde_json::from_slice(&std::fs::read(self.at("chain/simulator.json")).unwrap()).unwrap();
        let seed = hex::decode(file["seed"].as_str().unwrap()).unwrap().try_into().unwrap();
        (seed, file["made_at_s"].as_u64().unwrap())
    }
}

fn names(object: &Value, member: &str) -> Vec<String> {
    object[member].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn collateral_comes_from_a_pccs_and_a_revoked_platforms_worker_cannot_claim() {
    let pccs = Pccs::start();
    let world = World::new(&pccs);
    let _chain = world.localnet();
    let collateral: Collateral =
        serde_json::from_slice(&std::fs::read(world.at("chain/collateral.json")).unwrap()).unwrap();
    let publish = ["model", "register", MODEL, "--mnemonic", "chain/publisher.words", "--royalty-bps", "500"];
    assert!(world.run(&publish, "").status.success());

    // Anybody posts what a PCCS has; nothing, where it has nothing.
    let url = pccs.url();
    let fmspc = hex::encode_upper(FMSPC);
    let post = ["attest", "post-collateral", "--mnemonic", "chain/client.words", "--json", "--pccs", &url];
    let by_name = [&post[..], &["--fmspc", &fmspc, "--ca", "platform"]].concat();
    let error = world.error(&by_name);
    assert!(error.contains(&format!("{url} gave no PCK CRL")), "{error}");
    assert_eq!(error.matches("status 404").count(), 1, "{error}");
    assert!(world.error(&post).contains("collateral of which platform?"));
    assert!(
        world.error(&[&post[..], &["--fmspc", "00", "--ca", "platform"]].concat()).contains("is no FMSPC")
    );
    pccs.serves(&collateral);
    pccs.asked();
    let rehearsed = [&by_name[..], &["--dry-run"]].concat();
    let expected = ["authority", "authority", "root CRL", "PCK CRL", "TCB info", "QE identity"];
    for arguments in [&rehearsed, &by_name] {
        let (posted, exit) = world.json(arguments);
        assert_eq!(
            (names(&posted, "posted"), exit),
            (expected.map(str::to_owned).to_vec(), Some(0)),
            "{posted:#}"
        );
    }
    assert_eq!(pccs.asked().len(), 8);
    let (seed, made_at_s) = world.simulator();
    let image = TdIdentity::of_image("chrysalis worker, local chain");
    let quote = SimulatedPlatform::new(&seed, made_at_s).unwrap().quote(&[7; 64], &image);
    std::fs::write(world.at("quote"), quote).unwrap();
    let (posted, _) = world.json(&[&post[..], &["--quote", "quote"]].concat());
    assert_eq!(names(&posted, "posted"), [""; 0]);
    let inspect = ["attest", "inspect", "quote", "--dangerous-accept-simulated", "--json", "--pccs", &url];
    let (found, exit) = world.json(&inspect);
    assert_eq!((found["holds"].as_bool(), exit), (Some(true), Some(0)), "{found:#}");
    assert_eq!(pccs.asked().len(), 8);

    // The worker asks the same server when it starts, and keeps what it gave.
    let worker = world.service(&WORKER);
    let facts = worker.facts.clone();
    let job = world.post_when_ready(&facts);
    assert_eq!(pccs.asked().len(), 4);
    assert_eq!(std::fs::read_dir(world.at("worker/collateral")).unwrap().count(), 4);
    let wait = ["job", "result", &job, "--mnemonic", "chain/client.words", "--wait", "--json"];
    assert_eq!(world.json(&wait).0["state"], "settled");
    drop(worker);
    let open = world.post(&facts).unwrap();

    // The vendor revokes the platform.
    let address = facts["worker"].as_str().unwrap();
    let machine = u32::from_str_radix(&address.split(':').nth(1).unwrap()[..8], 16).unwrap();
    let number = Profile::default().revocations.number + 1;
    let revocations = Revocations { pck: true, number, ..Revocations::default() };
    let later = Period { from_s: Some(made_at_s - 60), until_s: None };
    let periods = Periods { pck_crl: later, root_crl: later, ..Periods::default() };
    let profile = Profile { machine, revocations, periods, ..Profile::default() };
    let revoked = SimulatedPlatform::with_profile(&seed, made_at_s, profile).unwrap();
    pccs.serves(revoked.collateral());
    let report =
        ["attest", "report-revocation", "--mnemonic", "chain/client.words", "--worker", address, "--json"];
    let (refused, exit) = world.json(&report);
    assert!(refused["refused"].as_str().is_some() && exit == Some(1), "{refused:#}");
    let (posted, _) = world.json(&by_name);
    assert!(names(&posted, "posted").contains(&"PCK CRL".to_owned()), "{posted:#}");
    let (reported, exit) = world.json(&report);
    assert_eq!((reported["done"].as_bool(), exit), (Some(true), Some(0)), "{reported:#}");
    assert!(world.error(&report).contains("no attestation to give up"));

    // It cannot be sent a job, it cannot register again, and it leaves the one that waits alone.
    let error = world.post(&facts).unwrap_err();
    assert!(error.contains("cannot take"), "{error}");
    let _worker = world.service(&WORKER);
    let until = Instant::now() + PATIENCE;
    while !world.log().contains("a contract refused what the owner's wallet sent") {
        assert!(Instant::now() < until, "{}", world.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(world.log().contains("verify_quote was refused: Revoked"), "{}", world.log());
    let (status, _) = world.json(&["job", "status", &open, "--json"]);
    let steps: Vec<_> = status["steps"].as_array().unwrap().iter().map(|step| step["step"].clone()).collect();
    assert_eq!(steps, ["posted"]);
    let cancel = ["job", "cancel", &open, "--mnemonic", "chain/client.words", "--json"];
    assert_eq!(world.json(&cancel).1, Some(0));
}
