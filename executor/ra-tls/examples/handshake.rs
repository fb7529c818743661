//! CPU time of one handshake on each side, one thread a side, without sockets: `cargo run -p ra-tls --example
//! handshake [COUNT]`.

use std::sync::Arc;
use std::time::Duration;

use contracts::receipt::generate_signing_key;
use contracts::{HashBytes, StdAddr};
use ra_tls::certificate::Validity;
use ra_tls::evidence::{self, Binding, ExpectedWorker};
use ra_tls::{Acceptor, ClientAuth, Connector, Identity, ServerLimits, SystemClock};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).map_or(Ok(200), |count| count.parse::<usize>())?;
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let receipt = generate_signing_key(&mut rand::rng());
    let worker = StdAddr::new(0, HashBytes([1; 32]));
    let binding = Binding {
        network_id: 1,
        worker: worker.clone(),
        registration_seqno: 0,
        validity: Validity::starting(now_s),
    };
    let expected = ExpectedWorker {
        network_id: 1,
        worker,
        registration_seqno: 0,
        receipt_key: HashBytes(receipt.verifying_key().to_bytes()),
        attested_until_s: u64::MAX,
    };
    let identity = Identity::worker(&binding, &receipt, &mut rand::rng())?;
    let session = Identity::session(generate_signing_key(&mut rand::rng()))?;
    let mut limits = ServerLimits::default();
    limits.admission.burst_per_peer = u32::MAX;
    let acceptor = Acceptor::new(&identity, ClientAuth::Optional, limits, Arc::new(SystemClock))?;
    for (name, session) in [("server authenticated", None), ("mutual", Some(&session))] {
        let timeout = Duration::from_secs(10);
        let connector = Connector::new(expected.clone(), session, timeout, Arc::new(SystemClock))?;
        let (client_us, server_us) = measure(&acceptor, &connector, count)?;
        println!("{name}: client {client_us} us, server {server_us} us (median CPU time of {count})");
    }
    let mut check_us = Vec::with_capacity(count);
    for _ in 0..count {
        let before = cpu();
        evidence::verify(identity.certificate(), &expected, now_s)?;
        check_us.push((cpu() - before).as_micros());
    }
    println!(
        "certificate and evidence check: {} us; certificate {} bytes",
        median(check_us),
        identity.certificate().len()
    );
    Ok(())
}

/// One runtime and thread a side, so that each thread's CPU clock counts one side's work.
fn measure(
    acceptor: &Acceptor,
    connector: &Connector,
    count: usize,
) -> Result<(u128, u128), Box<dyn std::error::Error>> {
    let (mut client_us, mut server_us) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let acceptor = acceptor.clone();
        let server = std::thread::spawn(move || -> Result<u128, String> {
            let runtime = runtime().map_err(|error| error.to_string())?;
            let before = cpu();
            runtime.block_on(async {
                let mut connection = acceptor
                    .accept(theirs, [127, 0, 0, 1].into())
                    .await
                    .map_err(|error| error.to_string())?;
                connection.write_all(b"x").await.map_err(|error| error.to_string())
            })?;
            Ok((cpu() - before).as_micros())
        });
        let runtime = runtime()?;
        let before = cpu();
        runtime.block_on(async {
            let mut connection = connector.connect(ours).await?;
            connection.read_exact(&mut [0]).await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        client_us.push((cpu() - before).as_micros());
        server_us.push(server.join().map_err(|_| "the server's thread panicked")??);
    }
    Ok((median(client_us), median(server_us)))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn median(mut values: Vec<u128>) -> u128 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
