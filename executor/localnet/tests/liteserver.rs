//! The liteserver: through the executor's own client, which checks every proof, and byte by byte.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use adnl::AdnlPeer;
use chain::{
    ChainAccess, ChainError, GlobalConfig, LiteserverChain, SenderTiming, StackValue, Timing, Transfer,
    Wallet, WalletSender, external_message,
};
use futures_util::{SinkExt, StreamExt};
use localnet::{BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions};
use tycho_types::cell::{Cell, CellFamily, HashBytes};
use tycho_types::models::{AccountStatus, StdAddr};

const TON: u128 = 1_000_000_000;

struct Served {
    handle: LocalnetHandle,
    chain: Arc<LiteserverChain>,
    public_key: [u8; 32],
    address: std::net::SocketAddrV4,
}

async fn serve(mode: BlockMode) -> Served {
    let handle = LocalnetHandle::new(LocalnetOptions::default(), mode, Clock::System).unwrap();
    let liteserver = Liteserver::bind_local(handle.clone()).await.unwrap();
    let config = GlobalConfig::from_json(&liteserver.global_config_json().unwrap()).unwrap();
    let (public_key, address) = (liteserver.public_key(), liteserver.address().unwrap());
    tokio::spawn(liteserver.serve());
    let blocks = handle.clone();
    tokio::spawn(async move { blocks.run().await });
    let chain = Arc::new(LiteserverChain::new(&config, Timing::default()));
    Served { handle, chain, public_key, address }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_lives_its_life_through_the_liteserver() {
    let Served { handle, chain, .. } = serve(BlockMode::Interval(Duration::from_millis(50))).await;
    let head = chain.head().await.unwrap();
    let waited = chain.wait_block(head.seqno + 2, Duration::from_secs(5)).await.unwrap();
    assert_eq!(waited.seqno, head.seqno + 2);
    let local = handle.read(|chain| chain.block(-1, waited.seqno).unwrap().id);
    assert_eq!((waited.root_hash, waited.file_hash), (local.root_hash, local.file_hash));

    for workchain in [0, -1] {
        let nobody = StdAddr::new(workchain, HashBytes([5; 32]));
        let view = chain.account(&nobody, &waited).await.unwrap();
        assert!(view.account.is_none() && view.last.is_none());
    }
    let giver = handle.read(|chain| chain.giver().clone());
    let view = chain.account(&giver, &waited).await.unwrap();
    assert_eq!(view.account.unwrap().balance.tokens.into_inner(), LocalnetOptions::default().supply_nanoton);

    let wallet = Wallet::from_seed(&[1; 32], -3).unwrap();
    let address = wallet.address().clone();
    handle.give(&address, 100 * TON).unwrap();
    while handle.balance(&address).unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sender = WalletSender::new(wallet, chain.clone(), SenderTiming::default());
    let receiver = StdAddr::new(0, HashBytes([6; 32]));
    for _ in 0..2 {
        sender.send(&[Transfer::payment(receiver.clone(), TON)]).await.unwrap();
    }
    let head = chain.head().await.unwrap();
    let view = chain.account(&address, &head).await.unwrap();
    assert_eq!(view.account.unwrap().state.status(), AccountStatus::Active);
    let history = chain.transactions(&address, view.last.unwrap(), None, 100).await.unwrap();
    assert_eq!(history.len(), 3);
    let getter = chain.run_getter(&address, "seqno", &[], &head).await.unwrap();
    assert_eq!(getter.success().unwrap(), [StackValue::Int(2)]);
    let missing = chain.run_getter(&receiver, "seqno", &[], &head).await.unwrap();
    assert_eq!(missing.exit_code, -256);

    let long = handle.clone();
    for _ in 0..40 {
        long.give(&receiver, TON).unwrap();
    }
    let target = handle.newest().seqno + 2;
    assert!(handle.wait_block(target, Duration::from_secs(10)).await);
    let head = chain.head().await.unwrap();
    let last = chain.account(&receiver, &head).await.unwrap().last.unwrap();
    assert_eq!(chain.transactions(&receiver, last, None, 100).await.unwrap().len(), 42);
    assert_eq!(handle.supply().unwrap().total_nanoton(), LocalnetOptions::default().supply_nanoton);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_blocks_that_do_not_come_are_told() {
    let Served { handle, chain, .. } = serve(BlockMode::Manual).await;
    handle.advance().unwrap();
    let wait = chain.wait_block(50, Duration::from_millis(300)).await;
    assert!(matches!(wait, Err(ChainError::Timeout { .. })), "{wait:?}");
    let to_nobody =
        external_message(&StdAddr::new(0, HashBytes([9; 32])), None, &Cell::empty_cell()).unwrap();
    let refused = chain.send_external(&to_nobody).await;
    assert!(matches!(refused, Err(ChainError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_answers_and_no_bytes_stop_the_server() {
    let Served { handle, public_key, address, .. } = serve(BlockMode::OnDemand).await;
    let giver = handle.read(|chain| chain.giver().clone());
    handle.give(&StdAddr::new(0, HashBytes([3; 32])), TON).unwrap();
    let (master, base, record) = handle.read(|chain| {
        let record = chain.transactions(&giver).last().unwrap().clone();
        (chain.newest().id, chain.block(0, record.block_seqno).unwrap().id, record)
    });
    let block = |id: &tycho_types::models::BlockId| {
        let mut bytes = id.shard.workchain().to_le_bytes().to_vec();
        bytes.extend(id.shard.prefix().to_le_bytes());
        bytes.extend(id.seqno.to_le_bytes());
        bytes.extend(id.root_hash.0);
        bytes.extend(id.file_hash.0);
        bytes
    };
    let account = [&0_i32.to_le_bytes()[..], &giver.address.0].concat();
    let word = |value: u32| value.to_le_bytes().to_vec();
    let lt = record.lt.to_le_bytes().to_vec();
    let master_id = block(&master);
    let base_id = block(&base);
    let short = |id: &[u8]| id[..16].to_vec();
    let queries: Vec<(u32, u32, Vec<Vec<u8>>)> = vec![
        (0x89b5_e62e, 0x8583_2881, vec![]),
        (0x70a6_71df, 0xa8cc_e0f5, vec![word(0)]),
        (0x16ad_5a34, 0xe953_000d, vec![]),
        (0x232b_940b, 0x5a04_91e5, vec![]),
        (0x6377_cf0d, 0xa574_ed6c, vec![master_id.clone()]),
        (0x6377_cf0d, 0xa574_ed6c, vec![base_id.clone()]),
        (0xba6e_2eb6, 0xabad_dc0c, vec![base_id.clone()]),
        (0x21ec_069e, 0x752d_8219, vec![base_id.clone(), word(0)]),
        (0x6b89_0e25, 0x7079_c751, vec![master_id.clone(), account.clone()]),
        (0x46a2_f425, 0x9fe6_cd84, vec![master_id.clone(), word(0), vec![0; 7], vec![128], word(0)]),
        (0x74d3_fd6b, 0x098f_e72d, vec![master_id.clone()]),
        (0xd40f_24ea, 0x0ede_ed47, vec![base_id.clone(), account.clone(), lt.clone()]),
        (0x1c40_e7a1, 0x6f26_c60b, vec![word(5), account.clone(), lt.clone(), record.hash.0.to_vec()]),
        (0xfac8_f71e, 0x752d_8219, vec![word(1), short(&master_id)]),
        (0xfac8_f71e, 0x752d_8219, vec![word(2), short(&base_id), lt.clone()]),
        (0xfac8_f71e, 0x752d_8219, vec![word(4), short(&master_id), word(u32::MAX)]),
        (0xadfc_c7da, 0xbd8c_ad2b, vec![base_id.clone(), word(7), word(10)]),
        (0x0079_dd5c, 0xfb8f_fce4, vec![base_id.clone(), word(0), word(1)]),
        (0x911b_26b7, 0xae7b_272f, vec![word(0), master_id.clone()]),
        (0x2a11_1c19, 0xae7b_272f, vec![word(0), master_id.clone(), word(1), word(21)]),
        (0xd122_b662, 0x117a_b96b, vec![word(0)]),
        (0x6b89_0e25, 0xbba9_e148, vec![short(&master_id), vec![1; 64], account.clone()]),
        (0x1111_1111, 0xbba9_e148, vec![]),
        (0x6377_cf0d, 0xbba9_e148, vec![word(1)]),
    ];
    let mut peer = AdnlPeer::connect(public_key, address).await.unwrap();
    for (method, expected, parts) in queries {
        let data = [word(method), parts.concat()].concat();
        let answer = ask(&mut peer, &data).await;
        assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()), expected, "method {method:#010x}");
    }
    let ping = [&0x4d08_2b9a_u32.to_le_bytes()[..], &7_u64.to_le_bytes()].concat();
    peer.send(ping.into()).await.unwrap();
    let pong = peer.next().await.unwrap().unwrap();
    assert_eq!(&pong[..4], &0xdc69_fb03_u32.to_le_bytes());
    assert_eq!(&pong[4..], &7_u64.to_le_bytes());

    peer.send(vec![0xff; 100].into()).await.unwrap();
    assert!(!matches!(peer.next().await, Some(Ok(_))), "rubbish ends the connection");
    let mut again = AdnlPeer::connect(public_key, address).await.unwrap();
    let answer = ask(&mut again, &word(0x16ad_5a34)).await;
    assert_eq!(&answer[..4], &0xe953_000d_u32.to_le_bytes());
}

async fn ask(peer: &mut AdnlPeer<tokio::net::TcpStream>, data: &[u8]) -> Vec<u8> {
    let query = [&0x798c_06df_u32.to_le_bytes()[..], &tl_bytes(data)].concat();
    let packet = [&0xb48b_f97a_u32.to_le_bytes()[..], &[4; 32], &tl_bytes(&query)].concat();
    peer.send(packet.into()).await.unwrap();
    let packet = peer.next().await.unwrap().unwrap();
    assert_eq!(&packet[..4], &0x0fac_8416_u32.to_le_bytes());
    assert_eq!(&packet[4..36], &[4; 32]);
    let skip = if packet[36] == 254 { 40 } else { 37 };
    packet[skip..].to_vec()
}

fn tl_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = if bytes.len() < 254 {
        vec![bytes.len() as u8]
    } else {
        vec![254, bytes.len() as u8, (bytes.len() >> 8) as u8, (bytes.len() >> 16) as u8]
    };
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}
