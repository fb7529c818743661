//! What code sees of the masterchain is what the liteserver serves.
#![allow(clippy::unwrap_used)]

use chain::{ChainAccess, GlobalConfig, LiteserverChain, McBlock, StackValue, Timing, external_message};
use localnet::{BlockMode, Clock, ExternalMessage, Liteserver, Localnet, LocalnetHandle, LocalnetOptions};
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::models::{AccountState, StateInit, StdAddr};

const TON: u128 = 1_000_000_000;

/// As a get-method it leaves PREVBLOCKSINFOTUPLE; an external message has it keep the root hash of the newest block.
fn probe() -> StateInit {
    // ACCEPT, PREVMCBLOCKS 0 INDEX 3 INDEX, NEWC 256 STU ENDC c4 POP
    let keep =
        code(&[0xf8, 0x00, 0xf8, 0x34, 0x00, 0x6f, 0x10, 0x6f, 0x13, 0xc8, 0xcb, 0xff, 0xc9, 0xed, 0x54]);
    let keep = keep.build().unwrap();
    // DUP -1 EQINT IFJMPREF, DROP PREVBLOCKSINFOTUPLE
    let mut root = code(&[0x20, 0xc0, 0xff, 0xe3, 0x02, 0x30, 0xf8, 0x2d]);
    root.store_reference(keep).unwrap();
    StateInit { code: Some(root.build().unwrap()), data: Some(Cell::default()), ..StateInit::default() }
}

fn code(bytes: &[u8]) -> CellBuilder {
    let mut builder = CellBuilder::new();
    builder.store_raw(bytes, u16::try_from(bytes.len() * 8).unwrap()).unwrap();
    builder
}

fn kept(chain: &Localnet, address: &StdAddr) -> Option<[u8; 32]> {
    let account = chain.account(address).unwrap().load_account().unwrap()?;
    let AccountState::Active(state) = account.state else { return None };
    Some(state.data.unwrap().as_slice().unwrap().load_u256().unwrap().0)
}

struct Served {
    handle: LocalnetHandle,
    chain: LiteserverChain,
}

impl Served {
    /// `[workchain shard seqno root_hash file_hash]` of a block as the liteserver names it. It looks no zero state up.
    async fn named(&self, seqno: u32) -> StackValue {
        let (root_hash, file_hash) = if seqno == 0 {
            let id = self.handle.read(|chain| chain.block(-1, 0).unwrap().id);
            (id.root_hash, id.file_hash)
        } else {
            let McBlock { root_hash, file_hash, .. } = self.chain.block(seqno).await.unwrap();
            (root_hash, file_hash)
        };
        StackValue::Tuple(vec![
            StackValue::Int(-1),
            StackValue::Int(1 << 63),
            StackValue::Int(i128::from(seqno)),
            StackValue::BigUint(root_hash.0),
            StackValue::BigUint(file_hash.0),
        ])
    }

    async fn names(&self, seqnos: impl Iterator<Item = u32>) -> StackValue {
        let mut blocks = Vec::new();
        for seqno in seqnos {
            blocks.push(self.named(seqno).await);
        }
        StackValue::Tuple(blocks)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_sees_the_blocks_the_liteserver_names() {
    let options = LocalnetOptions { kept_blocks: 2_000, ..LocalnetOptions::default() };
    let handle = LocalnetHandle::new(options, BlockMode::Manual, Clock::Virtual).unwrap();
    let liteserver = Liteserver::bind_local(handle.clone()).await.unwrap();
    let config = GlobalConfig::from_json(&liteserver.global_config_json().unwrap()).unwrap();
    tokio::spawn(liteserver.serve());
    let served = Served { chain: LiteserverChain::new(&config, Timing::default()), handle };
    let Served { handle, chain } = &served;

    let init = probe();
    let address = StdAddr::new(0, *CellBuilder::build_from(&init).unwrap().repr_hash());
    handle.give(&address, 10 * TON).unwrap();
    handle.advance().unwrap();
    let body = Cell::default();
    let deploy = external_message(&address, Some(init), &body).unwrap();
    handle.send(ExternalMessage::from_cell(deploy).unwrap()).unwrap();
    handle.advance().unwrap();

    for newest in [4, 15, 16, 99, 100, 1_630] {
        while handle.newest().seqno < newest {
            handle.advance().unwrap();
        }
        let head = chain.head().await.unwrap();
        assert_eq!(head.seqno, newest);
        let seen = chain.run_getter(&address, "blocks", &[], &head).await.unwrap().success().unwrap();
        let hundreds = (0..=newest / 100).rev().take(16).map(|hundred| hundred * 100);
        let expected = StackValue::Tuple(vec![
            served.names((0..=newest).rev().take(16)).await,
            served.named(0).await,
            served.names(hundreds).await,
        ]);
        assert_eq!(seen, [expected], "at {newest}");
    }
    let earlier = chain.block(1_620).await.unwrap();
    let seen = chain.run_getter(&address, "blocks", &[], &earlier).await.unwrap().success().unwrap();
    let [StackValue::Tuple(lists)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(lists[0], served.names((1_605..=1_620).rev()).await);

    let before = handle.newest();
    let again = external_message(&address, None, &body).unwrap();
    handle.send(ExternalMessage::from_cell(again).unwrap()).unwrap();
    handle.advance().unwrap();
    assert_eq!(handle.read(|chain| kept(chain, &address)), Some(before.root_hash.0));
}
