//! Public libraries: published by accounts of the masterchain, seen by all code, gone with the last publisher.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use localnet::{
    BlockMode, Clock, ExternalMessage, Liteserver, Localnet, LocalnetHandle, LocalnetOptions, exit_code,
    method_id, toncenter,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes};
use tycho_types::dict::Dict;
use tycho_types::models::{
    AccountState, AccountStatus, Base64StdAddrFlags, CurrencyCollection, DisplayBase64StdAddr, ExtInMsgInfo,
    IntAddr, IntMsgInfo, MsgInfo, OwnedMessage, ShardStateUnsplit, SimpleLib, StateInit, StdAddr,
};
use tycho_types::num::Tokens;

const TON: u128 = 1_000_000_000;
const MISSING_LIBRARY: Option<i32> = Some(9);
const YEAR_S: u32 = 365 * 86_400;

fn code(bytes: &[u8]) -> Cell {
    let mut builder = CellBuilder::new();
    builder.store_raw(bytes, u16::try_from(bytes.len() * 8).unwrap()).unwrap();
    builder.build().unwrap()
}

/// Adds one to the number in its data, whatever calls it, and leaves the sum on the stack.
fn counter() -> Cell {
    // ACCEPT, PUSHCTR c4, CTOS, 32 LDU, DROP, INC, DUP, NEWC, 32 STU, ENDC, POPCTR c4
    code(&[0xf8, 0x00, 0xed, 0x44, 0xd0, 0xd3, 0x1f, 0x30, 0xa4, 0x20, 0xc8, 0xcb, 0x1f, 0xc9, 0xed, 0x54])
}

/// An account of the basechain whose code is a library cell that stands for [`counter`].
fn counting(start: u32) -> (StateInit, StdAddr) {
    let data = CellBuilder::build_from(start).unwrap();
    let library = CellBuilder::build_library(counter().repr_hash());
    let init = StateInit { code: Some(library), data: Some(data), ..StateInit::default() };
    let address = StdAddr::new(0, *CellBuilder::build_from(&init).unwrap().repr_hash());
    (init, address)
}

/// The committed Librarian, with what it publishes as its data's references.
fn librarian(libraries: &[Cell]) -> (StateInit, StdAddr) {
    let artefact: Value =
        serde_json::from_str(include_str!("../../../contracts/artifacts/Librarian.json")).unwrap();
    let mut data = CellBuilder::new();
    for library in libraries {
        data.store_reference(library.clone()).unwrap();
    }
    let init = StateInit {
        code: Some(Boc::decode_base64(artefact["code_boc64"].as_str().unwrap()).unwrap()),
        data: Some(data.build().unwrap()),
        ..StateInit::default()
    };
    let address = StdAddr::new(-1, *CellBuilder::build_from(&init).unwrap().repr_hash());
    (init, address)
}

/// Its state once it has published.
fn after_publication(libraries: &[Cell]) -> StateInit {
    let mut held = Dict::new();
    for root in libraries {
        held.set(root.repr_hash(), SimpleLib { public: true, root: root.clone() }).unwrap();
    }
    StateInit { data: Some(Cell::default()), libraries: held, ..librarian(libraries).0 }
}

/// Asks the giver to send a message with a state.
fn deployment(
    giver: &StdAddr,
    to: &StdAddr,
    amount_nanoton: u128,
    init: Option<StateInit>,
    nonce: u64,
) -> ExternalMessage {
    let message = OwnedMessage {
        info: MsgInfo::Int(IntMsgInfo {
            ihr_disabled: true,
            bounce: true,
            src: IntAddr::Std(giver.clone()),
            dst: IntAddr::Std(to.clone()),
            value: CurrencyCollection::new(amount_nanoton),
            ..IntMsgInfo::default()
        }),
        init,
        body: Default::default(),
        layout: None,
    };
    let mut body = CellBuilder::new();
    body.store_u8(1).unwrap();
    body.store_u64(nonce).unwrap();
    body.store_reference(CellBuilder::build_from(&message).unwrap()).unwrap();
    external(giver, body.build().unwrap())
}

fn external(to: &StdAddr, body: Cell) -> ExternalMessage {
    let message = OwnedMessage {
        info: MsgInfo::ExtIn(ExtInMsgInfo {
            src: None,
            dst: IntAddr::Std(to.clone()),
            import_fee: Tokens::ZERO,
        }),
        init: None,
        body: body.into(),
        layout: None,
    };
    ExternalMessage::from_cell(CellBuilder::build_from(&message).unwrap()).unwrap()
}

struct Stage {
    chain: Localnet,
    now_s: u32,
    nonce: u64,
}

impl Stage {
    fn new() -> Self {
        let chain = Localnet::new(LocalnetOptions::default()).unwrap();
        let now_s = chain.options().genesis_utime_s;
        Self { chain, now_s, nonce: 0 }
    }

    /// Sends from the giver and makes blocks until nothing waits; the exit code at the receiver.
    fn send(&mut self, to: &StdAddr, amount_nanoton: u128, init: Option<StateInit>) -> Option<i32> {
        self.nonce += 1;
        let giver = self.chain.giver().clone();
        let message = deployment(&giver, to, amount_nanoton, init, self.nonce);
        self.chain.send(message, self.now_s).unwrap();
        while self.chain.has_work() {
            self.now_s += 1;
            let produced = self.chain.produce_block(self.now_s).unwrap();
            assert!(produced.dropped.is_empty(), "{:?}", produced.dropped);
        }
        exit_code(&self.chain.transactions(to).last().unwrap().load().unwrap())
    }

    fn publishers(&self, hash: &HashBytes) -> Vec<HashBytes> {
        let (_, state) = self.chain.state_at(-1, self.chain.newest().id.seqno).unwrap();
        let state: ShardStateUnsplit = state.parse().unwrap();
        let Some(library) = state.libraries.get(hash).unwrap() else { return Vec::new() };
        assert_eq!(library.lib.repr_hash(), hash);
        library.publishers.keys().map(Result::unwrap).collect()
    }

    fn state(&self, address: &StdAddr) -> (AccountStatus, Option<AccountState>) {
        let account = self.chain.account(address).unwrap().account.load().unwrap();
        (account.status(), account.state().cloned())
    }

    /// What the counter would say next as of a masterchain block, or its exit code.
    fn count(&self, address: &StdAddr, mc_seqno: u32) -> Result<u32, i32> {
        let output = self.chain.run_getter(address, method_id("count"), &no_arguments(), mc_seqno).unwrap();
        if output.exit_code == 0 { Ok(top(&output.stack)) } else { Err(output.exit_code) }
    }
}

fn no_arguments() -> Cell {
    let mut builder = CellBuilder::new();
    builder.store_uint(0, 24).unwrap();
    builder.build().unwrap()
}

/// The integer on top of a `VmStack`.
fn top(stack: &Cell) -> u32 {
    let mut slice = stack.as_slice().unwrap();
    slice.skip_first(24, 0).unwrap();
    assert_eq!(slice.load_u8().unwrap(), 1, "vm_stk_tinyint");
    u32::try_from(slice.load_u64().unwrap()).unwrap()
}

#[test]
fn what_a_librarian_publishes_serves_every_account_from_the_next_block() {
    let mut stage = Stage::new();
    let (init, account) = counting(40);
    assert_eq!(stage.send(&account, TON, Some(init.clone())), MISSING_LIBRARY);
    // It was deployed all the same; what the message brought went back.
    assert_eq!(stage.send(&account, TON, None), MISSING_LIBRARY);
    let before = stage.chain.newest().id.seqno;
    assert_eq!(stage.count(&account, before), Err(9));

    let library = counter();
    let (publishing, librarian) = librarian(std::slice::from_ref(&library));
    assert_eq!(stage.send(&librarian, 5 * TON, Some(publishing)), Some(0));
    assert_eq!(stage.publishers(library.repr_hash()), [librarian.address]);
    assert_eq!(stage.chain.library(library.repr_hash()).unwrap(), Some(library.clone()));
    let (_, state) = stage.chain.state_at(0, stage.chain.newest().id.seqno).unwrap();
    assert!(state.parse::<ShardStateUnsplit>().unwrap().libraries.is_empty());
    let (_, Some(AccountState::Active(held))) = stage.state(&librarian) else { panic!("not active") };
    assert_eq!(held, after_publication(&[library]));

    let after = stage.chain.newest().id.seqno;
    assert_eq!((stage.count(&account, before), stage.count(&account, after)), (Err(9), Ok(41)));
    assert_eq!(stage.send(&account, TON, None), Some(0));
    let outside = external(&account, no_arguments());
    let rehearsed = stage.chain.dry_run(&outside, stage.now_s, false).unwrap();
    assert_eq!(exit_code(&rehearsed), Some(0));
    stage.chain.send(outside, stage.now_s).unwrap();
    stage.chain.produce_block(stage.now_s).unwrap();
    assert_eq!(stage.count(&account, stage.chain.newest().id.seqno), Ok(43));
    assert_eq!(stage.chain.supply().unwrap().stuck_nanoton, 0);
}

#[test]
fn a_librarian_keeps_what_it_is_given_and_answers_nobody() {
    let mut stage = Stage::new();
    let (publishing, librarian) = librarian(&[counter()]);
    stage.send(&librarian, 5 * TON, Some(publishing.clone()));
    // A second deployment is money, and no more.
    assert_eq!(stage.send(&librarian, 3 * TON, Some(publishing)), Some(0));
    assert_eq!(stage.send(&librarian, TON, None), Some(0));
    let account = stage.chain.account(&librarian).unwrap().account.load().unwrap();
    let balance = account.balance().tokens.into_inner();
    assert!(balance > 89 * TON / 10 && balance < 9 * TON, "{balance}");
    for record in stage.chain.transactions(&librarian) {
        assert_eq!(record.load().unwrap().out_msg_count.into_inner(), 0);
    }
    assert!(stage.chain.send(external(&librarian, no_arguments()), stage.now_s).is_err());
}

#[test]
fn a_library_lives_as_long_as_somebody_pays_for_it() {
    let mut stage = Stage::new();
    let (counting, account) = counting(0);
    let library = counter();
    let alone = [library.clone()];
    let both = [library.clone(), code(&[0x70])];
    let (publishing, poor) = librarian(&alone);
    stage.send(&poor, TON / 2, Some(publishing));
    let (publishing, rich) = librarian(&both);
    stage.send(&rich, 100 * TON, Some(publishing));
    let mut publishers = vec![poor.address, rich.address];
    publishers.sort_unstable();
    assert_eq!(stage.publishers(library.repr_hash()), publishers);

    stage.now_s += YEAR_S;
    // Nothing happens to an account in debt until a message comes.
    stage.chain.produce_block(stage.now_s).unwrap();
    assert_eq!(stage.publishers(library.repr_hash()), publishers);
    stage.send(&poor, TON / 100, None);
    assert_eq!(stage.state(&poor).0, AccountStatus::Frozen);
    assert_eq!(stage.publishers(library.repr_hash()), [rich.address]);
    assert_eq!(stage.send(&account, TON, Some(counting)), Some(0));

    stage.now_s += 50 * YEAR_S;
    stage.send(&rich, TON / 100, None);
    assert_eq!(stage.state(&rich).0, AccountStatus::Frozen);
    assert_eq!(stage.chain.library(library.repr_hash()).unwrap(), None);
    assert_eq!(stage.send(&account, TON, None), MISSING_LIBRARY);

    // Frozen in debt beyond measure, it is deleted at the next touch; then anybody deploys it anew.
    stage.send(&poor, TON / 100, None);
    assert_eq!(stage.state(&poor).0, AccountStatus::NotExists);
    let (publishing, _) = librarian(&alone);
    assert_eq!(stage.send(&poor, 5 * TON, Some(publishing)), Some(0));
    assert_eq!(stage.publishers(library.repr_hash()), [poor.address]);
    assert_eq!(stage.send(&account, TON, None), Some(0));
}

#[test]
fn anybody_wakes_a_frozen_librarian_with_the_state_it_had() {
    let mut stage = Stage::new();
    let library = [counter()];
    let (publishing, librarian) = librarian(&library);
    stage.send(&librarian, TON / 2, Some(publishing));
    // In debt by less than what deletes an account.
    stage.now_s += 180 * 86_400;
    stage.send(&librarian, TON / 1000, None);
    while stage.state(&librarian).0 == AccountStatus::Active {
        stage.now_s += 20 * 86_400;
        stage.send(&librarian, TON / 1000, None);
    }
    assert_eq!(stage.state(&librarian).0, AccountStatus::Frozen);
    assert_eq!(stage.chain.library(library[0].repr_hash()).unwrap(), None);
    assert_eq!(stage.send(&librarian, 5 * TON, Some(after_publication(&library))), Some(0));
    assert_eq!(stage.publishers(library[0].repr_hash()), [librarian.address]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libraries_outlive_a_restart_and_reach_clients() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let library = counter();
    let (init, account) = counting(6);
    let newest = {
        let handle = open(&path);
        let giver = handle.read(|chain| chain.giver().clone());
        let (publishing, librarian) = librarian(std::slice::from_ref(&library));
        handle.send(deployment(&giver, &librarian, 5 * TON, Some(publishing), 1)).unwrap();
        handle.send(deployment(&giver, &account, TON, Some(init), 2)).unwrap();
        assert_eq!(handle.run_getter(&account, "count", &no_arguments()).unwrap().exit_code, 0);
        handle.newest()
    };
    let handle = open(&path);
    assert_eq!(handle.newest(), newest);
    let liteserver = Liteserver::bind_local(handle.clone()).await.unwrap();
    let (key, address) = (liteserver.public_key(), liteserver.address().unwrap());
    tokio::spawn(liteserver.serve());
    let asked = [HashBytes([5; 32]), *library.repr_hash(), *library.repr_hash()];
    assert_eq!(libraries_of(key, address, &asked).await, [(*library.repr_hash(), library.clone())]);

    let listener = toncenter::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(toncenter::serve(handle, listener));

    let friendly = DisplayBase64StdAddr {
        addr: &account,
        flags: Base64StdAddrFlags { testnet: false, base64_url: true, bounceable: true },
    };
    let call = json!({ "address": friendly.to_string(), "method": "count", "stack": [] });
    let answer = rpc(port, "runGetMethod", call).await;
    assert_eq!(answer["exit_code"], 0);
    assert_eq!(answer["stack"].as_array().unwrap().last().unwrap(), &json!(["num", "0x8"]));

    let unknown = HashBytes([5; 32]).to_string();
    let asked = json!({ "libraries": [unknown, library.repr_hash().to_string()] });
    let answer = rpc(port, "getLibraries", asked).await;
    let found = answer["result"].as_array().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(Boc::decode_base64(found[0]["data"].as_str().unwrap()).unwrap(), library);
    server.abort();
}

fn open(path: &Path) -> LocalnetHandle {
    LocalnetHandle::open(LocalnetOptions::default(), BlockMode::OnDemand, Clock::Virtual, path).unwrap()
}

/// What a liteserver answers to `liteServer.getLibraries`.
async fn libraries_of(key: [u8; 32], address: SocketAddrV4, asked: &[HashBytes]) -> Vec<(HashBytes, Cell)> {
    let mut request = 0xd122_b662_u32.to_le_bytes().to_vec();
    request.extend(u32::try_from(asked.len()).unwrap().to_le_bytes());
    request.extend(asked.iter().flat_map(|hash| hash.0));
    // liteServer.query data:bytes, in adnl.message.query query_id:int256 query:bytes
    let query = [&0x798c_06df_u32.to_le_bytes()[..], &tl_bytes(&request)].concat();
    let packet = [&0xb48b_f97a_u32.to_le_bytes()[..], &[7; 32], &tl_bytes(&query)].concat();
    let mut peer = adnl::AdnlPeer::connect(key, address).await.unwrap();
    peer.send(packet.into()).await.unwrap();
    let answer = tokio::time::timeout(LIMIT, peer.next()).await.unwrap().unwrap().unwrap();
    let answer = answer.get(36..).unwrap();
    // liteServer.libraryResult: how many, and of each the hash and its bag of cells.
    let mut rest = tl_read(answer).0;
    let mut word = || {
        let (word, after) = rest.split_at(4);
        rest = after;
        u32::from_le_bytes(word.try_into().unwrap())
    };
    assert_eq!(word(), 0x117a_b96b);
    let count = word();
    let mut found = Vec::new();
    for _ in 0..count {
        let (hash, after) = rest.split_at(32);
        let (boc, after) = tl_read(after);
        found.push((HashBytes::from_slice(hash), Boc::decode(boc).unwrap()));
        rest = after;
    }
    assert!(rest.is_empty());
    found
}

/// `bytes` of fewer than 254.
fn tl_bytes(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 254);
    let mut out = vec![u8::try_from(bytes.len()).unwrap()];
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// `bytes` of fewer than 254, and what follows.
fn tl_read(data: &[u8]) -> (&[u8], &[u8]) {
    let length = usize::from(data[0]);
    assert!(length < 254);
    (&data[1..=length], &data[(length + 1).next_multiple_of(4)..])
}

const LIMIT: Duration = Duration::from_secs(30);

async fn rpc(port: u16, method: &str, params: Value) -> Value {
    let body = json!({ "id": 1, "jsonrpc": "2.0", "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "POST /api/v2/jsonRPC HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap()["result"].clone()
}
