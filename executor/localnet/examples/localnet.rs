//! Runs a local chain: toncenter v2 on 127.0.0.1:8081, a liteserver on 127.0.0.1:8082.
//!
//! `localnet [HTTP_PORT [LITESERVER_PORT [INTERVAL_MS]]]`; port 0 takes a free one. It prints one line of JSON with what
//! it took, after its banner.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use localnet::{BANNER, BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions, toncenter};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: u64| arguments.next().map_or(Ok(otherwise), |text| text.parse::<u64>());
    let http_port = u16::try_from(number(8081)?)?;
    let liteserver_port = u16::try_from(number(8082)?)?;
    let interval = Duration::from_millis(number(500)?);

    let handle =
        LocalnetHandle::new(LocalnetOptions::default(), BlockMode::Interval(interval), Clock::System)?;
    let listener = toncenter::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, http_port))).await?;
    let liteserver =
        Liteserver::bind(handle.clone(), SocketAddrV4::new(Ipv4Addr::LOCALHOST, liteserver_port)).await?;
    println!("{BANNER}");
    let facts = json!({
        "http": format!("http://{}", listener.local_addr()?),
        "liteserver": liteserver.address()?.to_string(),
        "global_id": handle.read(|chain| chain.options().global_id),
        "global_config": serde_json::from_str::<serde_json::Value>(&liteserver.global_config_json()?)?,
    });
    println!("{facts}");
    let blocks = handle.clone();
    tokio::select! {
        () = blocks.run() => {}
        () = liteserver.serve() => {}
        served = toncenter::serve(handle, listener) => served?,
    }
    Ok(())
}
