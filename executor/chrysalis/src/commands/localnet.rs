//! `chrysalis localnet`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use clap::Args;
use localnet::{BANNER, BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions, toncenter};
use serde_json::json;

/// Where to listen and how fast to make blocks.
#[derive(Args)]
pub(crate) struct LocalnetArguments {
    /// Port of the toncenter v2 API on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 8081)]
    http_port: u16,
    /// Port of the liteserver on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 8082)]
    liteserver_port: u16,
    /// Time between blocks.
    #[arg(long, default_value_t = 500)]
    block_interval_ms: u64,
}

pub(crate) async fn run(arguments: LocalnetArguments) -> anyhow::Result<bool> {
    let interval = Duration::from_millis(arguments.block_interval_ms);
    let handle =
        LocalnetHandle::new(LocalnetOptions::default(), BlockMode::Interval(interval), Clock::System)?;
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.http_port));
    let listener = toncenter::bind(http).await?;
    let lite = SocketAddrV4::new(Ipv4Addr::LOCALHOST, arguments.liteserver_port);
    let liteserver = Liteserver::bind(handle.clone(), lite).await?;
    eprintln!("{BANNER}");
    let facts = json!({
        "simulated": true,
        "http": format!("http://{}", listener.local_addr()?),
        "liteserver": liteserver.address()?.to_string(),
        "network_id": handle.read(|chain| chain.options().global_id),
        "global_config": serde_json::from_str::<serde_json::Value>(&liteserver.global_config_json()?)?,
    });
    println!("{facts:#}");
    let blocks = handle.clone();
    tokio::select! {
        () = blocks.run() => {}
        () = liteserver.serve() => {}
        served = toncenter::serve(handle, listener) => served?,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(true)
}
