//! `chrysalis localnet`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use localnet::{BANNER, BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions, toncenter};
use serde_json::json;
use worker::DataDir;

use crate::exit::Exit;
use crate::ready::{Served, prepare};
use crate::stop;

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
    /// Keep the chain here and go on with it later. A Registry is deployed, wallets that everybody knows are funded,
    /// and `network.json` with all that the other commands need is written here.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

pub(crate) async fn run(arguments: LocalnetArguments) -> anyhow::Result<Exit> {
    let mode = BlockMode::Interval(Duration::from_millis(arguments.block_interval_ms));
    let kept = arguments.data_dir.as_deref().map(DataDir::open).transpose()?;
    let options = LocalnetOptions::default();
    let handle = match &kept {
        Some(dir) => LocalnetHandle::open(options, mode, Clock::System, &dir.file("chain.journal"))?,
        None => LocalnetHandle::new(options, mode, Clock::System)?,
    };
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.http_port));
    let listener = toncenter::bind(http).await?;
    let lite = SocketAddrV4::new(Ipv4Addr::LOCALHOST, arguments.liteserver_port);
    let liteserver = Liteserver::bind(handle.clone(), lite).await?;
    eprintln!("{BANNER}");
    let mut facts = json!({
        "simulated": true,
        "http": format!("http://{}", listener.local_addr()?),
        "liteserver": liteserver.address()?.to_string(),
        "network_id": handle.read(|chain| chain.options().global_id),
        "global_config": serde_json::from_str::<serde_json::Value>(&liteserver.global_config_json()?)?,
    });
    let served = Served::by(&liteserver)?;
    let blocks = handle.clone();
    let say = async {
        if let Some(dir) = &kept {
            facts["ready"] = prepare(&handle, &served, dir.path()).await?.json();
        }
        println!("{facts:#}");
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! {
        () = blocks.run() => {}
        () = liteserver.serve() => {}
        served = toncenter::serve(handle.clone(), listener) => served?,
        said = say => said?,
        stopped = stop::asked() => stopped?,
    }
    Ok(Exit::Success)
}
